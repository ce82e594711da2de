"""Columns of tables: the roles that their names, their types or the user give them, and their numbers."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nutime_jax.data.series import MISSING, SWAPPED_MARKS
from nutime_jax.errors import InputError
from nutime_jax.options import nearest

LABELS = ("label", "class", "target", "y")
IDS = ("id", "series_id", "unique_id", "item_id", "case_id", "sample_id")
TIMES = ("time", "timestamp", "ds", "date", "t", "datetime", "step", "timestep", "time_step", "time_idx")
STARTS = ("start", "freq")
"""Columns of the GluonTS layout that describe the time axis of a row's list."""
NAMING = "--label_column, --id_column; in Python columns=Columns(label=…)"
"""Ways to give a role to a column."""


@dataclass(frozen=True)
class Columns:
    """Columns that the user names; None and () leave the choice to the names (IDS, TIMES, LABELS) and types.

    id, time, label: a column each. channels: the columns of values, names or patterns as t*; the other columns are ignored.
    """

    id: str | None = None
    time: str | None = None
    label: str | None = None
    channels: tuple[str, ...] = ()


BY_NAME = Columns()
"""The roles of columns follow from their names and types."""


@dataclass(frozen=True)
class FrameTable:
    """A pandas frame, its column names, and the position of its rows in the file.

    source: the file, or the name of the frame in error messages.
    lines: the line of each row; None where the source has no lines.
    first: number of rows of the source before this frame.
    decimal: decimal mark of texts.
    """

    source: object
    names: list[str]
    frame: Any
    lines: Sequence[int] | None = None
    first: int = 0
    columns: Columns = BY_NAME
    decimal: str = "."

    def location(self, row: int) -> str:
        return f"{self.source}, row {self.first + row + 1}" if self.lines is None else f"{self.source}, line {self.lines[row]}"

    def cell(self, row: int, column: int) -> str:
        return f"{self.location(row)}, column {self.names[column]!r}"


@dataclass(frozen=True)
class Roles:
    """Column indices by role; the other columns are ignored."""

    id: int | None
    time: int | None
    label: int | None
    values: list[int] = field(default_factory=list)
    lists: bool = False

    @property
    def long(self) -> bool:
        return self.time is not None and not self.lists

    def describe(self, names: Sequence[str]) -> dict[str, str]:
        """Return the role of every column, for users."""
        known = {self.id: "id", self.time: "time", self.label: "label"} | dict.fromkeys(self.values, "channel" if self.long else "values")
        return {name: known.get(column, "ignored") for column, name in enumerate(names)}


def assign_roles(table: FrameTable) -> Roles:
    """Return the role of each column: as the user names them, else by name and type."""
    source, names, chosen = table.source, table.names, table.columns
    lists = {column for column in range(len(names)) if holds_lists(table, column)}
    scalars = {column: name for column, name in enumerate(names) if column not in lists}
    id_column = named_column(source, names, chosen.id) if chosen.id else find_column(source, scalars, IDS)
    time = named_column(source, names, chosen.time) if chosen.time else find_column(source, scalars, TIMES)
    labels = label_names(names, long=id_column is not None and time is not None and not lists)
    label = named_column(source, names, chosen.label) if chosen.label else find_column(source, scalars, labels)
    others = [column for column in range(len(names)) if column not in (id_column, time, label) and not _is_index(names, column)]
    if chosen.channels:
        values = [column for name in chosen.channels for column in _matching_columns(source, names, name)]
        return Roles(id_column, time, label, values, lists=bool(lists.intersection(values)))
    if not lists:
        return Roles(id_column, time, label, others)
    values = [column for column in others if column not in lists or names[column].strip().lower() not in TIMES]
    return Roles(id_column, time, label, [column for column in values if names[column].strip().lower() not in STARTS], lists=True)


def label_names(names: Sequence[str], *, long: bool | None = None) -> Sequence[str]:
    """Return the names that the label column of a table with these columns may have."""
    if long is None:
        lowered = {name.strip().lower() for name in names}
        long = not lowered.isdisjoint(IDS) and not lowered.isdisjoint(TIMES)
    # In long tables Nixtla calls the value `y`, and GluonTS `target`: there they are channels.
    return LABELS[:2] if long else LABELS


def named_column(source: object, names: Sequence[str], name: str) -> int:
    """Return the index of the column that the user names."""
    matches = [column for column, other in enumerate(names) if other.strip() == name.strip()]
    if len(matches) != 1:
        reason = "no column" if not matches else f"{len(matches)} columns"
        raise InputError(f"{source} has {reason} {name!r}{nearest(name, names)}; choose one of {', '.join(names[:20])}")
    return matches[0]


def _matching_columns(source: object, names: Sequence[str], pattern: str) -> list[int]:
    """Return the column of this name, or the columns that match it as a pattern of the shell."""
    exact = pattern.strip() in map(str.strip, names)
    matches = [] if exact else [column for column, name in enumerate(names) if fnmatch.fnmatchcase(name.strip(), pattern.strip())]
    return matches or [named_column(source, names, pattern)]


def find_column(source: object, names: Sequence[str] | dict[int, str], known: Sequence[str]) -> int | None:
    """Return the index of the only column that has one of the known names."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    matches = [(column, name) for column, name in pairs if name.strip().lower() in known]
    if len(matches) > 1:
        found = " and ".join(repr(name) for _, name in matches)
        raise InputError(f"{source} has columns {found}, which may have the same role; rename or remove all but one, or name it")
    return matches[0][0] if matches else None


def _is_index(names: Sequence[str], column: int) -> bool:
    """Whether pandas wrote row numbers to a column: the first column of texts, any column of Parquet."""
    name = names[column].strip().lower()
    return (column == 0 and name in ("", "unnamed: 0")) or name.startswith("__index_level_")


def holds_lists(table: FrameTable, column: int) -> bool:
    values = table.frame.iloc[:, column]
    return values.dtype.kind == "O" and any(_is_list(cell) for cell in values)


def _is_list(cell: object) -> bool:
    import pandas

    return isinstance(cell, (np.ndarray, list, tuple, pandas.Series))


def column_numbers(table: FrameTable, column: int) -> np.ndarray:
    """Return the numbers of a column, float32 where it is so in the file, else float64; empty cells are NaN."""
    values = table.frame.iloc[:, column]
    numbers, invalid = parse_numbers(values, table.decimal)
    if invalid.any():
        row = int(np.argmax(invalid))
        text = f"{table.cell(row, column)}: {str(values.iat[row])!r} is not a number"
        raise InputError(f"{text}; correct it, leave the cell empty, or name the column if it is a label or an id ({NAMING})")
    return numbers


def parse_numbers(column: Any, decimal: str = ".") -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a pandas column, NaN for other cells, and a mask of the cells that are neither number nor empty."""
    import pandas

    if column.dtype.kind == "c":
        raise InputError(f"Complex data not supported: column {column.name!r} has {column.dtype} values; pass their real parts")
    if pandas.api.types.is_numeric_dtype(column):  # booleans too
        dtype = np.float32 if column.dtype == np.float32 else np.float64
        return column.to_numpy(dtype, na_value=np.nan), np.zeros(len(column), bool)
    missing = column.isna().to_numpy()
    if column.dtype.kind in "mM" or isinstance(column.dtype, pandas.PeriodDtype):
        return np.full(len(column), np.nan), ~missing
    cells = column.astype(object)
    if decimal != ".":
        cells = cells.map(lambda cell: cell.translate(SWAPPED_MARKS) if isinstance(cell, str) else cell)
    numbers = pandas.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    invalid = np.isnan(numbers) & ~missing
    invalid[invalid] = [str(cell).strip().lower() not in MISSING for cell in cells[invalid]]
    return numbers, invalid
