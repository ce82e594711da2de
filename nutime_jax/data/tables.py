"""Tables of series: *wide*, a row a series, and *long*, a row a time step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.errors import InputError

LABELS = ("label", "class", "target", "y")
IDS = ("id", "series_id", "unique_id", "item_id")
TIMES = ("time", "timestamp", "ds", "date", "t")


class Read(NamedTuple):
    """Series, (time,) or (channels, time) each, their labels and what their source calls them, where it has these."""

    series: list[np.ndarray]
    labels: np.ndarray | None = None
    ids: np.ndarray | None = None


@dataclass(frozen=True)
class Table:
    """A pandas frame whose columns are known by place, the names of these, and where a row stands in the file.

    source: the file, or what an error calls the frame.
    lines: the line of each row; None where the source has no lines.
    first: the row of the source that is the first of the frame.
    """

    source: object
    names: list[str]
    frame: Any
    lines: Sequence[int] | None = None
    first: int = 0

    def place(self, row: int) -> str:
        return f"{self.source}, row {self.first + row + 1}" if self.lines is None else f"{self.source}, line {self.lines[row]}"


def read_table(table: Table) -> Read:
    """The series of a wide or a long table.

    Long is a table with a column of IDS and one of TIMES; its rows are ordered by time, whatever their order in the file.
    Every other table is wide: a row a series, columns in their order, less a column of LABELS and a column of IDS.

    Raises:
        InputError: a column twice, no column of numbers, or what is no number in one.
    """
    ids, times, label = (find_column(table.source, table.names, known) for known in (IDS, TIMES, label_names(table.names)))
    if ids is not None and times is not None:
        return _read_long(table, ids, times, label)
    if times is not None:
        name = table.names[times]
        raise InputError(f"{table.source} has a time column {name!r} but no id column; add `id`, which says whose step a row is")
    return _read_wide(table, ids, label)


def read_frame(frame: Any, *, name: str) -> Read:
    """The series of a pandas frame that a user hands over; an index with a name is a column like any other.

    Args:
        name: what an error calls the frame.

    Raises:
        InputError: see `read_table`.
    """
    if any(one is not None for one in frame.index.names):
        try:
            frame = frame.reset_index()
        except ValueError as error:
            raise InputError(f"{name} has an index that is called like a column ({error}); rename one of them") from error
    return read_table(Table(name, [str(column) for column in frame.columns], frame))


def label_names(names: Sequence[str]) -> Sequence[str]:
    """What the column of labels of a table with these columns may be called."""
    lowered = {name.strip().lower() for name in names}
    # In long tables Nixtla calls the value `y`, and GluonTS `target`: there they are channels.
    return LABELS if lowered.isdisjoint(IDS) or lowered.isdisjoint(TIMES) else LABELS[:2]


def find_column(source: object, names: Sequence[str], known: Sequence[str]) -> int | None:
    """The place of the one column that has one of the known names."""
    places = [place for place, name in enumerate(names) if name.strip().lower() in known]
    if len(places) > 1:
        found = " and ".join(repr(names[place]) for place in places)
        raise InputError(f"{source} has columns {found}, of which one can be meant; rename or remove the others")
    return places[0] if places else None


def _values(table: Table, *others: int | None) -> list[int]:
    """The places of the columns that are left, without the index of pandas."""
    return [place for place, name in enumerate(table.names) if place not in others and not _is_index(place, name.strip().lower())]


def _is_index(place: int, name: str) -> bool:
    """Whether pandas has numbered the rows in a column: the first of texts, any of Parquet."""
    return (place == 0 and name in ("", "unnamed: 0")) or name.startswith("__index_level_")


def _read_wide(table: Table, ids: int | None, label: int | None) -> Read:
    places = _values(table, ids, label)
    if not places:
        raise InputError(f"{table.source} has no column of numbers; a row is a series, a column a time step")
    labels = None if label is None else table.frame.iloc[:, label].to_numpy()
    lists = [place for place in places if _holds_lists(table, place)]
    names = None if ids is None else table.frame.iloc[:, ids].to_numpy()
    if not lists:
        return Read(list(np.column_stack([_numbers(table, place) for place in places])), labels, names)
    if lists != places:
        name = table.names[next(place for place in places if place not in lists)]
        raise InputError(f"{table.source} has lists of numbers beside the column {name!r}; remove it, or call it `label`")
    return Read([_channels(table, lists, row) for row in range(len(table.frame))], labels, names)


def _holds_lists(table: Table, place: int) -> bool:
    column = table.frame.iloc[:, place]
    return column.dtype == object and any(_is_list(cell) for cell in column)


def _is_list(cell: object) -> bool:
    import pandas

    return isinstance(cell, (np.ndarray, list, tuple, pandas.Series))


def _is_ragged(cell) -> bool:
    """Whether a cell holds lists in its lists."""
    return any(_is_list(one) for one in cell)


def _channels(table: Table, places: list[int], row: int) -> np.ndarray:
    """A series whose channels are the lists of a row."""
    cells = [table.frame.iat[row, place] for place in places]
    cells = [np.asarray(cell) if _is_list(cell) and not _is_ragged(cell) else cell for cell in cells]
    for place, cell in zip(places, cells, strict=True):
        if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "biuf" or cell.ndim != 1:
            name = table.names[place]
            raise InputError(f"{table.place(row)}, column {name!r} is no list of numbers; give one list a row and channel")
    if len({len(cell) for cell in cells}) > 1:
        raise InputError(
            f"{table.place(row)} has lists of {[len(cell) for cell in cells]} numbers; the channels of a series are of one length"
        )
    return np.stack(cells)


def _numbers(table: Table, place: int) -> np.ndarray:
    """A column of numbers, float32 where it is so in the file, else float64; empty cells are NaN."""
    column = table.frame.iloc[:, place]
    numbers, wrong = _parse(column)
    if wrong.any():
        row = int(np.argmax(wrong))
        where = f"{table.place(row)}, column {table.names[place]!r}"
        raise InputError(f"{where}: {str(column.iat[row])!r} is not a number; correct it, leave the cell empty, or remove the column")
    return numbers


def _parse(column) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a column, NaN where there are none, and whether a cell holds something that is no number."""
    import pandas

    if pandas.api.types.is_numeric_dtype(column):  # booleans too
        dtype = np.float32 if column.dtype == np.float32 else np.float64
        return column.to_numpy(dtype, na_value=np.nan), np.zeros(len(column), bool)
    missing = column.isna().to_numpy()
    if column.dtype.kind in "mM":
        return np.full(len(column), np.nan), ~missing
    numbers = pandas.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64)
    return numbers, np.isnan(numbers) & ~missing


def _read_long(table: Table, ids: int, times: int, label: int | None) -> Read:
    import pandas

    owner, _ = pandas.factorize(table.frame.iloc[:, ids])  # numbered as they appear; -1 where missing
    if (owner < 0).any():
        raise InputError(f"{table.place(int(np.argmin(owner)))} has no {table.names[ids]}; say which series it belongs to")
    steps = _steps(table, times)
    order = np.lexsort((steps, owner))
    owner, steps = owner[order], steps[order]
    again = (owner[1:] == owner[:-1]) & (steps[1:] == steps[:-1])
    if again.any():
        row = order[1:][np.argmax(again)]
        name, time = (str(table.frame.iat[row, place]) for place in (ids, times))
        raise InputError(f"{table.place(row)}: series {name} has time {time} twice; keep one row of them")
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    channels = _long_channels(table, _values(table, ids, times, label))
    series = np.split(channels[:, order], starts[1:], axis=1) if len(order) else []
    names = table.frame.iloc[:, ids].to_numpy()[order[starts]]
    return Read(series, None if label is None else _long_labels(table, label, order, starts), names)


def _long_channels(table: Table, places: list[int]) -> np.ndarray:
    """The columns that hold numbers, (channels, rows); those of text alone describe the series, and are left out."""
    columns = [_numbers(table, place) for place in places if not _parse(table.frame.iloc[:, place])[1].all()]
    if not columns:
        raise InputError(f"{table.source} has no column of numbers beside id and time; add one a channel")
    return np.stack(columns)


def _long_labels(table: Table, place: int, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The label of each series, which all its rows have."""
    import pandas

    column = table.frame.iloc[:, place]
    codes = pandas.factorize(column)[0][order]
    changes = np.diff(codes, prepend=codes[:1]) != 0
    changes[starts] = False
    if changes.any():
        where = f"{table.place(order[np.argmax(changes)])}, column {table.names[place]!r}"
        raise InputError(f"{where}: the label changes within a series; give every row of a series the same")
    return column.to_numpy()[order[starts]]


def _steps(table: Table, place: int) -> np.ndarray:
    """What rows are ordered by: numbers, durations or moments."""
    import pandas

    column = table.frame.iloc[:, place]
    steps, wrong = _parse(column)
    if column.dtype.kind == "m":
        steps = column.to_numpy()
    elif wrong.any():
        # Other ways of writing a date leave the order of day and month to guesswork.
        moments = pandas.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
        steps = moments.dt.tz_localize(None).to_numpy()
    missing = np.isnat(steps) if steps.dtype.kind in "mM" else np.isnan(steps)
    if missing.any():
        row = int(np.argmax(missing))
        where = f"{table.place(row)}, column {table.names[place]!r}"
        raise InputError(f"{where}: {str(column.iat[row])!r} is no time; write numbers, or dates as 2024-05-31 12:00")
    return steps
