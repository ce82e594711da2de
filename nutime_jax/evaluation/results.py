"""Results and failures of evaluations: CSV files for reports, and the cells of a sweep, one file each."""

import csv
import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from sklearn.metrics import f1_score

from nutime_jax.errors import InputError
from nutime_jax.storage import error_summary, read_checked, write_bytes, write_checked

log = logging.getLogger(__name__)

T = TypeVar("T")
FAILURES = "failures.csv"
"""Name of the file of failed cells in a results folder."""

VERSION = 5
"""Raise it when cells would have other results: cached cells are then computed again."""


@dataclass(frozen=True)
class Result:
    """One value of one metric.

    method: name of an encoder ("pretrained", "untrained") or of a baseline ("minirocket").
    dataset: name of the dataset.
    protocol: name of a probe, of a protocol of `registry.PROTOCOLS`, "point_anomaly" or "baseline".
    setting: all other choices as text: "layer=3 pooling=cls+mean scaler=standard", "shots=5".
    seed: of the encoder, fold or fine-tuning; 0 if the result is deterministic.
    metric: "accuracy", "f1", "nmi", …
    value: the value; accuracies are fractions, not percent.
    selection: "train" if all choices were made within the train split, "test" if the test split made one (the published
        fine-tuning protocol): reports mark such rows.
    split: "default" for the default train and test split, "resample 3" for others; they never share a column.
    train_cases, test_cases: number of cases.
    seconds: wall time of the cell; the first cell of an encoder and a dataset includes the features that others share.
    encoder: path and digest of the weights of an encoder, see `encoders.describe_encoder`; empty for a baseline.
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
    encoder: str = ""


def class_metrics(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return "accuracy", "balanced_accuracy" (mean recall of the classes of `labels`) and "f1" (mean F1 of all classes)."""
    recalls = [np.mean(predicted[labels == label] == label) for label in np.unique(labels)]
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(np.mean(recalls)),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def write_rows(rows: Iterable[Result], path: Path) -> None:
    """Write one line per result; see `write_records`."""
    write_records(rows, path, kind=Result)


def read_rows(path: Path) -> list[Result]:
    """Read a file of `write_rows`; see `read_records`."""
    return read_records(path, kind=Result, what="results")


@dataclass(frozen=True)
class Failure:
    """A cell without a result: fields of `Result`, and the error message."""

    method: str
    dataset: str
    protocol: str
    setting: str
    message: str


def write_failures(failures: Iterable[Failure], path: Path) -> None:
    """Write one line per failure; see `write_records`."""
    write_records(failures, path, kind=Failure)


def read_failures(path: Path) -> list[Failure]:
    """Read a file of `write_failures`; see `read_records`."""
    return read_records(path, kind=Failure, what="failures")


def write_records(records: Iterable[T], path: Path, *, kind: type[T]) -> None:
    """Write one line per record of a dataclass atomically, with all digits."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(field.name for field in dataclasses.fields(kind))
    writer.writerows(dataclasses.astuple(record) for record in records)
    write_bytes(path, table.getvalue().encode())


def read_records(path: Path, *, kind: type[T], what: str) -> list[T]:
    """Read a file of `write_records`; other columns are ignored, and columns with a default may be absent.

    Args:
        what: name of the records in error messages.

    Raises:
        InputError: the file cannot be read, or is not a table of such records.
    """
    fields = dataclasses.fields(kind)
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            present = reader.fieldnames or ()
            missing = [field.name for field in fields if field.name not in present and field.default is dataclasses.MISSING]
            if missing:
                raise InputError(f"{path} is not a table of {what}: column {missing[0]} is missing")
            types = {field.name: field.type for field in fields if field.name in present}
            return [kind(**{name: convert(line[name] or "") for name, convert in types.items()}) for line in reader]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as a table of {what} ({error})") from error


@dataclass(frozen=True)
class SweepCell:
    """One protocol with one setting, for one method on one dataset: the unit of caching.

    method, dataset, protocol, setting, seed: as in `Result`. The seed numbers repetitions and is not part of the key: the
        number of an encoder depends on the encoders before it.
    content: digest of the encoder's weights, of the cases of the dataset and of the random seed.
    """

    method: str
    dataset: str
    protocol: str
    setting: str
    seed: int
    content: str

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        """First fields of its results."""
        return self.method, self.dataset, self.protocol, self.setting, self.seed

    @property
    def key(self) -> str:
        """File name of the cell."""
        text = json.dumps([VERSION, *self.identity[:-1], self.content])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class CellStore:
    """Cells of a sweep in a folder, one file each, written atomically; several processes may share it."""

    def __init__(self, folder: Path):
        self._folder = folder / "cells"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error

    def read(self, cell: SweepCell) -> list[Result] | None:
        """Return the results of a cell; None if it is not computed or its file is damaged."""
        content = read_checked(self._path(cell))
        return None if content is None else [Result(**{**row, "seed": cell.seed}) for row in json.loads(content)]

    def write(self, cell: SweepCell, results: list[Result]) -> None:
        """Store the results of a cell. A cell that cannot be stored is computed again the next time."""
        try:
            write_checked(self._path(cell), json.dumps([dataclasses.asdict(result) for result in results]).encode())
        except OSError as error:
            log.warning("a cell is not kept: %s cannot be written (%s)", self._folder, error_summary(error))

    def _path(self, cell: SweepCell) -> Path:
        return self._folder / f"{cell.key}.cell"
