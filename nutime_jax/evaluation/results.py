"""Rows of results, the currency of sweeps and reports: one number of one method on one set."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nutime_jax.evaluation.records import read_records, write_records


@dataclass(frozen=True)
class Row:
    """One number.

    method: what is evaluated: an encoder's name ("pretrained", "untrained") or a baseline's ("minirocket").
    dataset: name of the set.
    protocol: how: "ridge", "logistic", "knn", "forest", "finetune", "fewshot", "clustering", "anomaly",
        "monitoring", "baseline".
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


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Writes one line a row; see `write_records`."""
    write_records(rows, path, kind=Row)


def read_rows(path: Path) -> list[Row]:
    """Reads what `write_rows` wrote; see `read_records`."""
    return read_records(path, kind=Row, what="results")
