"""Cells that failed, beside the rows of results: which, and why."""

import csv
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nutime_jax.errors import InputError

NAME = "failures.csv"
"""Where a folder of results keeps them."""


@dataclass(frozen=True)
class Failure:
    """One cell without a number; the fields are those of `results.Row`, and the sentence that says why."""

    method: str
    dataset: str
    protocol: str
    setting: str
    message: str


COLUMNS = tuple(field.name for field in dataclasses.fields(Failure))


def write_failures(failures: Iterable[Failure], path: Path) -> None:
    """Writes one line a failure, replacing the file in one move."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(dataclasses.astuple(failure) for failure in failures)
    os.replace(temporary, path)


def read_failures(path: Path) -> list[Failure]:
    """Reads what `write_failures` wrote.

    Raises:
        InputError: the file cannot be read, or is no table of failures.
    """
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise InputError(f"{path} is no table of failures: it has no column {missing[0]}")
            return [Failure(**{name: line[name] or "" for name in COLUMNS}) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table of failures ({error})") from error
