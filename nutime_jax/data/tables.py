"""Tables of series: *wide*, one row per series, and *long*, one row per time step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nutime_jax.data.series import Cases, as_numbers
from nutime_jax.errors import InputError

LABELS = ("label", "class", "target", "y")
IDS = ("id", "series_id", "unique_id", "item_id")
TIMES = ("time", "timestamp", "ds", "date", "t")
STARTS = ("start", "freq")
"""Columns of the GluonTS layout that describe the time axis of a row's list."""
MAX_FILL = 10
"""Maximum time points of a series after missing rows are filled in, per row that the table has."""


@dataclass(frozen=True)
class Columns:
    """Columns that the user names; None and () leave the choice to the names (IDS, TIMES, LABELS) and types.

    id, time, label: a column each. channels: the columns of values; the other columns are ignored.
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
    """

    source: object
    names: list[str]
    frame: Any
    lines: Sequence[int] | None = None
    first: int = 0
    columns: Columns = BY_NAME

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


def read_table(table: FrameTable) -> Cases:
    """Return the series of a wide or a long table, their labels and ids.

    A table with an id and a time column is long. Its rows are sorted by time; on a regular grid of times, missing rows
    become NaN (`regular_steps`). Any other table is wide: one row per series, either one column per time step or one
    column of lists per channel.

    Raises:
        InputError: a role fits two columns, no column has numbers, or a cell of values is not a number.
    """
    roles = assign_roles(table)
    if roles.long and roles.id is None:
        raise InputError(
            f"{table.source} has a time column {table.names[roles.time]!r} but no id column; add `id`, the series of each row, "
            "or pass one multichannel series as an array (1, channels, time)"
        )
    return _read_long(table, roles) if roles.long else _read_wide(table, roles)


def assign_roles(table: FrameTable) -> Roles:
    """Return the role of each column: as the user names them, else by name and type."""
    source, names, chosen = table.source, table.names, table.columns
    lists = {column for column in range(len(names)) if _holds_lists(table, column)}
    scalars = {column: name for column, name in enumerate(names) if column not in lists}
    id_column = named_column(source, names, chosen.id) if chosen.id else find_column(source, scalars, IDS)
    time = named_column(source, names, chosen.time) if chosen.time else find_column(source, scalars, TIMES)
    labels = label_names(names, long=id_column is not None and time is not None and not lists)
    label = named_column(source, names, chosen.label) if chosen.label else find_column(source, scalars, labels)
    others = [column for column in range(len(names)) if column not in (id_column, time, label) and not _is_index(names, column)]
    if chosen.channels:
        values = [named_column(source, names, name) for name in chosen.channels]
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
        raise InputError(f"{source} has {reason} {name!r}; choose one of {', '.join(names[:20])}")
    return matches[0]


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


def _read_wide(table: FrameTable, roles: Roles) -> Cases:
    if not roles.values:
        raise InputError(f"{table.source} has no column of numbers; a row is a series, a column a time step")
    labels = None if roles.label is None else table.frame.iloc[:, roles.label].to_numpy()
    ids = None if roles.id is None else table.frame.iloc[:, roles.id].to_numpy()
    facts = {"roles": roles.describe(table.names)}
    if not roles.lists:
        series = list(np.column_stack([column_numbers(table, column) for column in roles.values]))
        return Cases(series, labels, ids, **facts)
    for column in roles.values:
        if not _holds_lists(table, column):
            name = table.names[column]
            raise InputError(f"{table.source} has lists of numbers beside the column {name!r}; remove it, or call it `label`")
    return Cases([_list_channels(table, roles.values, row) for row in range(len(table.frame))], labels, ids, **facts)


def _holds_lists(table: FrameTable, column: int) -> bool:
    values = table.frame.iloc[:, column]
    return values.dtype.kind == "O" and any(_is_list(cell) for cell in values)


def _is_list(cell: object) -> bool:
    import pandas

    return isinstance(cell, (np.ndarray, list, tuple, pandas.Series))


def _list_channels(table: FrameTable, columns: list[int], row: int) -> np.ndarray:
    """Return a series (channels, time): the lists of a row."""
    channels = []
    for column in columns:
        cell = table.frame.iat[row, column]
        try:
            values = as_numbers(list(cell) if isinstance(cell, tuple) else cell, name="")
        except InputError:
            values = np.zeros(())
        if values.ndim != 1:
            raise InputError(f"{table.cell(row, column)} is not a list of numbers; write one list per row and channel")
        channels.append(values)
    lengths = [len(values) for values in channels]
    if len(set(lengths)) > 1:
        raise InputError(f"{table.location(row)} has lists of {lengths} numbers; the channels of a series have one length")
    return np.stack(channels)


def column_numbers(table: FrameTable, column: int) -> np.ndarray:
    """Return the numbers of a column, float32 where it is so in the file, else float64; empty cells are NaN."""
    values = table.frame.iloc[:, column]
    numbers, invalid = parse_numbers(values)
    if invalid.any():
        row = int(np.argmax(invalid))
        text = f"{table.cell(row, column)}: {str(values.iat[row])!r} is not a number"
        raise InputError(f"{text}; correct it, leave the cell empty, or remove the column")
    return numbers


def parse_numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
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
    numbers = pandas.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64)
    return numbers, np.isnan(numbers) & ~missing


def _read_long(table: FrameTable, roles: Roles) -> Cases:
    import pandas

    ids = table.frame.iloc[:, roles.id]
    owner, _ = pandas.factorize(ids)  # numbered as they appear; -1 where missing
    if (owner < 0).any():
        raise InputError(f"{table.location(int(np.argmin(owner)))} has no {table.names[roles.id]}; write the series that it belongs to")
    times = _times(table, roles.time)
    order = np.lexsort((times, owner))
    owner, times = owner[order], times[order]
    repeated = (owner[1:] == owner[:-1]) & (times[1:] == times[:-1])
    if repeated.any():
        row = order[1:][np.argmax(repeated)]
        series, time = (str(table.frame.iat[row, column]) for column in (roles.id, roles.time))
        raise InputError(f"{table.location(row)}: series {series} has time {time} twice; keep one of the rows")
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    # Columns of text alone describe the series, and are ignored.
    numeric = [column for column in roles.values if not parse_numbers(table.frame.iloc[:, column])[1].all()]
    if not numeric:
        raise InputError(f"{table.source} has no column of numbers beside id and time; add one per channel")
    channels = np.stack([column_numbers(table, column) for column in numeric])[:, order]
    series, unequal = [], 0
    for values, steps in zip(np.split(channels, starts[1:], axis=1), np.split(times, starts[1:]), strict=True):
        index = regular_steps(steps)
        unequal += index is None
        series.append(values if index is None else _on_grid(values, index))
    roles = Roles(roles.id, roles.time, roles.label, numeric)
    labels = None if roles.label is None else _long_labels(table, roles.label, order, starts)
    constant = [table.names[column] for column, fixed in zip(numeric, _constant(channels, starts), strict=True) if fixed]
    facts = {"roles": roles.describe(table.names), "unequal_steps": unequal, "constant_channels": tuple(constant)}
    return Cases(series if len(order) else [], labels, ids.to_numpy()[order[starts]], **facts)


def regular_steps(times: np.ndarray) -> np.ndarray | None:
    """Return the indices of sorted times on their regular grid; None where the steps are unequal.

    The grid's step is the most frequent one; at least half of the steps must have it, and all others must be whole multiples.
    On a daily grid without a Saturday or Sunday, the steps are working days.
    """
    if len(times) < 2:
        return np.arange(len(times))
    if times.dtype.kind == "M":
        days = times.astype("datetime64[D]")
        if len(times) > 2 and (days == times).all() and np.is_busday(days).all():
            return _bounded(np.busday_count(days[0], days))
    seconds = (times - times[0]).astype("timedelta64[ns]").astype(np.int64) if times.dtype.kind in "mM" else times - times[0]
    steps, counts = np.unique(np.diff(seconds), return_counts=True)
    most = int(np.argmax(counts))
    if 2 * counts[most] < len(times) - 1:
        return None
    index = seconds / steps[most]
    whole = np.rint(index)
    return _bounded(whole.astype(np.int64)) if np.abs(index - whole).max() < 1e-3 else None


def _bounded(index: np.ndarray) -> np.ndarray | None:
    return index if index[-1] < MAX_FILL * len(index) and (np.diff(index) > 0).all() else None


def _on_grid(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the values (channels, time) with NaN at the time points that have no row."""
    if index[-1] + 1 == len(index):
        return values
    filled = np.full((len(values), index[-1] + 1), np.nan, values.dtype)
    filled[:, index] = values
    return filled


def _constant(channels: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return whether each channel (channels, rows) is constant within every series, which two or more series with two or more rows show."""
    if len(starts) < 2 or channels.shape[1] < 2 * len(starts):
        return np.zeros(len(channels), bool)
    changes = np.diff(channels, axis=1) != 0
    changes[:, starts[1:] - 1] = False
    return ~changes.any(1)


def _long_labels(table: FrameTable, label: int, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the label of each series, which all its rows have."""
    import pandas

    column = table.frame.iloc[:, label]
    codes = pandas.factorize(column)[0][order]
    changes = np.diff(codes, prepend=codes[:1]) != 0
    changes[starts] = False
    if changes.any():
        where = table.cell(order[np.argmax(changes)], label)
        raise InputError(f"{where}: the label changes within a series; write the same in every row of a series")
    return column.to_numpy()[order[starts]]


def _times(table: FrameTable, time: int) -> np.ndarray:
    """Return the times of the rows: numbers, durations or dates."""
    import pandas

    column = table.frame.iloc[:, time]
    times, invalid = parse_numbers(column)
    if isinstance(column.dtype, pandas.PeriodDtype):
        times = column.dt.to_timestamp().to_numpy()
    elif column.dtype.kind == "O" and any(isinstance(cell, pandas.Period) for cell in column):
        times = pandas.PeriodIndex(column).to_timestamp().to_numpy()
    elif column.dtype.kind == "m":
        times = column.to_numpy()
    elif invalid.any():
        # Other ways of writing a date leave the order of day and month to guesswork.
        dates = pandas.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
        times = dates.dt.tz_localize(None).to_numpy()
    missing = np.isnat(times) if times.dtype.kind in "mM" else np.isnan(times)
    if missing.any():
        row = int(np.argmax(missing))
        raise InputError(f"{table.cell(row, time)}: {str(column.iat[row])!r} is not a time; write numbers, or dates as 2024-05-31 12:00")
    return times
