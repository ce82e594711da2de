"""Cells that failed, beside the rows of results: which, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nutime_jax.evaluation.records import read_records, write_records

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


def write_failures(failures: Iterable[Failure], path: Path) -> None:
    """Writes one line a failure; see `write_records`."""
    write_records(failures, path, kind=Failure)


def read_failures(path: Path) -> list[Failure]:
    """Reads what `write_failures` wrote; see `read_records`."""
    return read_records(path, kind=Failure, what="failures")
