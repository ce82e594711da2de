"""Rows of results and failed cells, the input of reports: dataclasses of texts and numbers, one per line of a CSV file."""

import csv
import dataclasses
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nutime_jax.errors import InputError
from nutime_jax.storage import storage_for

T = TypeVar("T")
FAILURES = "failures.csv"
"""Name of the file of failed cells in a folder of results."""


@dataclass(frozen=True)
class Row:
    """One number.

    method: what is evaluated: an encoder's name ("pretrained", "untrained") or a baseline's ("minirocket").
    dataset: name of the set.
    protocol: how: "ridge", "logistic", "knn", "forest", "finetune", "fewshot", "clustering", "anomaly",
        "point_anomaly", "baseline".
    setting: what else was chosen, in words: "layer=3 pooling=cls+mean scaler=standard", "shots=5".
    seed: of the encoder, fold or fine-tuning; 0 for what is deterministic.
    metric: "accuracy", "f1", "nmi", …
    value: the number; accuracies are shares, not percent.
    selection: "train" if all choices were made inside the training split, "test" if the test split made one (the
        published fine-tuning protocol): such rows are marked wherever they are shown.
    split: "default" for the default train and test split, "resample 3" for others; they never share a column.
    train_cases, test_cases: their number.
    seconds: wall time of the cell; the first of an encoder on a set makes the features that the others share.
    """

    method: str
    dataset: str
    protocol: str
    setting: str
    seed: int
    metric: str
    value: float
    selection: str = "train"
    split: str = "default"
    train_cases: int = 0
    test_cases: int = 0
    seconds: float = 0.0


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Writes one line a row; see `write_records`."""
    write_records(rows, path, kind=Row)


def read_rows(path: Path) -> list[Row]:
    """Reads what `write_rows` wrote; see `read_records`."""
    return read_records(path, kind=Row, what="results")


@dataclass(frozen=True)
class Failure:
    """One cell without a number; the fields are those of `results.Row`, and the sentence that says why."""

    method: str
    dataset: str
    protocol: str
    setting: str
    message: str


def write_failures(failures: Iterable[Failure], path: Path) -> None:
    """Writes one line a failure; see `write_records`."""
    write_records(failures, path, kind=Failure)


def read_failures(path: Path) -> list[Failure]:
    """Reads what `write_failures` wrote; see `read_records`."""
    return read_records(path, kind=Failure, what="failures")


def write_records(records: Iterable[T], path: Path, *, kind: type[T]) -> None:
    """Writes one line a record of a dataclass, replacing the file in one move; numbers come back to the last digit."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(field.name for field in dataclasses.fields(kind))
    writer.writerows(dataclasses.astuple(record) for record in records)
    storage_for(path).replace(path, table.getvalue().encode())


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
