"""Rows of results, the currency of sweeps and reports: one number of one method on one set."""

import csv
import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nutime_jax.errors import InputError


@dataclass(frozen=True)
class Row:
    """One number.

    method: what is evaluated: an encoder's name ("pretrained", "untrained") or a baseline's ("minirocket").
    dataset: name of the set.
    protocol: how: "ridge", "logistic", "knn", "forest", "finetune", "fewshot", "clustering", "anomaly", "baseline".
    setting: what else was chosen, in words: "layer=3 readout=cls+mean scaler=standard", "shots=5".
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


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Writes one line a row, replacing the file in one move; numbers come back to the last digit."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(dataclasses.astuple(row) for row in rows)
    os.replace(temporary, path)


def read_rows(path: Path) -> Sequence[Row]:
    """Reads what `write_rows` wrote.

    Raises:
        InputError: the file cannot be read, or is no table of results.
    """
    kinds = {
        field.name: {"str": str, "int": int, "float": float}[getattr(field.type, "__name__", field.type)]
        for field in dataclasses.fields(Row)
    }
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            if missing := set(COLUMNS) - set(reader.fieldnames or ()):
                raise InputError(f"{path} is no table of results: it has no column {sorted(missing)[0]}")
            return [Row(**{name: kinds[name](line[name]) for name in COLUMNS}) for line in reader]
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as a table of results ({error})") from error
