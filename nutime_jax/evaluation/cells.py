"""Cells of a sweep: one file each, written in one move, so that a sweep can be killed at any moment and continued."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Row
from nutime_jax.storage import open_atomically

VERSION = 3
"""To be raised when the same cell would give other numbers: cells computed before are then computed anew."""


@dataclass(frozen=True)
class Cell:
    """What is computed at once: one protocol with one setting for one method on one set.

    method, dataset, protocol, setting, seed: as in `results.Row`. The seed numbers repetitions, and is no part of what the cell is:
        the same encoder has another number where others come before it.
    content: digest of the encoder's weights, of the cases of the set and of what is drawn: other contents are other cells.
    """

    method: str
    dataset: str
    protocol: str
    setting: str
    seed: int
    content: str

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        """The first fields of its rows."""
        return self.method, self.dataset, self.protocol, self.setting, self.seed

    @property
    def key(self) -> str:
        """A name for the file of this cell."""
        text = json.dumps([VERSION, *self.identity[:-1], self.content])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class CellStore:
    """The cells of a sweep in a folder; several processes may fill it together."""

    def __init__(self, folder: Path):
        self._folder = folder / "cells"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error

    def read(self, cell: Cell) -> list[Row] | None:
        """The rows of a cell; None if it has not been computed. A damaged file counts as none."""
        try:
            content = json.loads((self._folder / f"{cell.key}.json").read_text())
            return [Row(**{**row, "seed": cell.seed}) for row in content]
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, cell: Cell, rows: list[Row]) -> None:
        """Keeps the rows of a cell."""
        path = self._folder / f"{cell.key}.json"
        try:
            with open_atomically(path, "w") as file:
                json.dump([dataclasses.asdict(row) for row in rows], file)
        except OSError as error:
            raise InputError(f"{self._folder} cannot be written ({error.strerror}); make room and start again") from error
