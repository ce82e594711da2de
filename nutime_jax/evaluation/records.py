"""Tables of records: a dataclass of texts and numbers a line, as CSV."""

import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from nutime_jax.errors import InputError
from nutime_jax.storage import place_of

T = TypeVar("T")


def write_records(records: Iterable[T], path: Path, *, kind: type[T]) -> None:
    """Writes one line a record of a dataclass, replacing the file in one move; numbers come back to the last digit."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(field.name for field in dataclasses.fields(kind))
    writer.writerows(dataclasses.astuple(record) for record in records)
    place_of(path).replace(path, table.getvalue().encode())


def read_records(path: Path, *, kind: type[T], what: str) -> list[T]:
    """Reads what `write_records` wrote; further columns are passed over.

    Args:
        what: what an error calls the records.

    Raises:
        InputError: the file cannot be read, or is no such table.
    """
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in types if name not in (reader.fieldnames or ())]:
                raise InputError(f"{path} is no table of {what}: it has no column {missing[0]}")
            return [kind(**{name: convert(line[name] or "") for name, convert in types.items()}) for line in reader]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as a table of {what} ({error})") from error
