"""The one reader of the series that users pass: arrays, lists, tables of pandas, polars and pyarrow, xarray, iterators.

`embed`, the estimators, fine-tuning and `predict` read with it; files are tables of `data.tables` or arrays.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.data.columns import BY_NAME, IDS, LABELS, TIMES, Columns, FrameTable, column_numbers, find_column
from nutime_jax.data.datasets import read_path
from nutime_jax.data.series import Cases, as_numbers, clean_block, clean_series
from nutime_jax.data.tables import read_table
from nutime_jax.errors import InputError, InputTypeError, extra

log = logging.getLogger(__name__)

BLOCK = 1024
"""Cases of an array that are cleaned together."""
WIDE_RATIO = 10
"""Channels per time point from which axes are probably swapped."""
FORMS = "pass an array (cases, [channels,] time), a list of arrays ([channels,] time), a table or an iterator of cases"
CHANNEL_DIMS = ("channel", "channels", "variable", "sensor", "feature")
TIME_DIMS = (*TIMES, "timepoint", "timepoints")


class SeriesInput(NamedTuple):
    """Series that a user passed.

    series: finite, (channels, time) each, of any lengths and all with the same channels; see `clean_series`.
    labels, ids: one per case, as they were passed; None where X is not a table, or has none.
    num_columns: columns of a table of numbers (cases, time), which scikit-learn calls features; None for other forms.
    """

    series: list[np.ndarray]
    labels: np.ndarray | None = None
    ids: np.ndarray | None = None
    num_columns: int | None = None


def read_series(X: Any, *, columns: Columns = BY_NAME) -> SeriesInput:
    """Return the series of X with their labels and ids. X is not changed.

    Args:
        X: one of
            an array (cases, time) or (cases, channels, time) of any real dtype; masked values, NaN, None and pandas.NA are missing;
            a sequence of arrays (time,) or (channels, time) of any lengths; lists of numbers of one length are a table;
            a table of pandas, polars or pyarrow, wide or long (see `read_frame`);
            an xarray.DataArray, whose dimension names order its axes;
            the path of a file, see `datasets.read_path`; labels and ids are then text.
        columns: columns of a table, where their names do not give their role.

    Raises:
        InputError: X has another form, is empty, or has a case that is not a series or has other channels.
    """
    if not isinstance(columns, Columns):
        raise InputTypeError(f"columns is {columns!r}; pass Columns, as in Columns(label={str(columns)!r})")
    if isinstance(X, (str, os.PathLike)):
        cases = read_path(X, columns=columns)
        return SeriesInput(cases.series, cases.labels, cases.ids)
    raw = _read(X, columns)
    if isinstance(raw.series, np.ndarray):
        blocks = raw.series if raw.series.ndim == 3 else raw.series[:, None]
        series = [case for i in range(0, len(blocks), BLOCK) for case in clean_block(blocks[i : i + BLOCK], first=i)]
    else:
        series = [_clean_case(case, i) for i, case in enumerate(raw.series)]
    if not series:
        raise InputError("X has no series (0 sample(s)); pass one or more")
    counts = sorted({len(case) for case in series})
    if len(counts) > 1:
        raise InputError(f"cases have {counts} channels; every case needs the same number")
    _warn_of_swapped_axes(series[0])
    return raw._replace(series=series)


def clean_cases(X: Any) -> list[np.ndarray]:
    """Return the series of X, finite, (channels, time) each; see `read_series`."""
    return read_series(X).series


def iter_clean_cases(X: Iterator[Any]) -> Iterator[np.ndarray]:
    """Yield the cases of an iterator, finite, (channels, time) each.

    Raises:
        InputError: when a case is drawn that is not a series, or has other channels than the first.
    """
    num_channels = None
    for i, item in enumerate(X):
        case = _clean_case(item, i)
        if num_channels is None:
            num_channels = len(case)
            _warn_of_swapped_axes(case)
        if len(case) != num_channels:
            raise InputError(f"case {i} has {len(case)} channels, case 0 has {num_channels}; every case needs the same number")
        yield case


def _clean_case(case: Any, number: int) -> np.ndarray:
    name = f"case {number}"
    if _is_table(case):
        raise InputTypeError(
            f"{name} is of type {type(case).__name__}; pass {name.replace(' ', '_')}.to_numpy().T if its rows are times, "
            ".to_numpy() if they are channels, or one table of all cases"
        )
    if case is None or isinstance(case, (str, bytes, Mapping, Set, Iterator)):
        raise InputTypeError(f"{name} is {_kind(case)}; pass it as an array (time,) or (channels, time)")
    return clean_series(as_numbers(case, name=name), name=name)


def _read(X: Any, columns: Columns) -> SeriesInput:
    """Return the series as they were passed: an array, or a list of cases."""
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise InputError("X is sparse, and sparse series are not supported; pass X.toarray()")
    if _is_table(X):
        return _read_table(X, columns)
    if columns != BY_NAME:
        raise InputError(f"X is {_kind(X)}, and only tables have columns; pass no names of columns")
    if hasattr(X, "dims") and hasattr(X, "transpose"):
        return SeriesInput(_ordered_axes(X))
    if isinstance(X, (str, bytes, type, Mapping, Set, Iterator)) or not (hasattr(X, "__array__") or hasattr(X, "__len__")):
        raise InputTypeError(f"X is {_kind(X)}; {FORMS}")
    if not hasattr(X, "__array__"):
        return _read_list(list(X))
    return _read_array(X)


def _read_list(items: list[Any]) -> SeriesInput:
    if not items:
        raise InputError("X has no series (0 sample(s)); pass one or more")
    if isinstance(items[0], (str, bytes)) or any(getattr(item, "ndim", 0) or _is_table(item) for item in items):
        return SeriesInput(items)
    if all(item is None or np.isscalar(item) for item in items):
        raise InputError(f"X is one series of {len(items)} time points; pass several as a list of arrays, or this one as [X]")
    try:
        array = np.array(items)
    except ValueError:  # of unequal lengths
        return SeriesInput(items)
    return _read_array(array)


def _read_array(X: Any) -> SeriesInput:
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if array.dtype.kind == "O" and array.ndim == 1 and not all(item is None or np.isscalar(item) for item in array):
        return SeriesInput(list(array))  # cases of unequal lengths
    array = as_numbers(X, name="X")
    if array.ndim not in (2, 3):
        remedy = "(Reshape your data: one series alone is X.reshape(1, -1))" if array.ndim == 1 else ""
        raise InputError(f"X has shape {array.shape}; pass (cases, time) or (cases, channels, time) {remedy}".rstrip())
    if len(array) and not array.size:
        raise InputError(f"X has 0 feature(s) (shape={array.shape}) while a minimum of 1 is required; pass series of 1 or more time points")
    return SeriesInput(array, num_columns=array.shape[1] if array.ndim == 2 else None)


def _read_table(X: Any, columns: Columns) -> SeriesInput:
    frame = X.collect() if hasattr(X, "collect") else X
    if not hasattr(frame, "iloc"):
        with extra("data"):
            frame = frame.to_pandas()
    cases = read_frame(frame, name="X", columns=columns)
    whole = len(cases.series) == len(frame) and all(case.shape == (frame.shape[1],) for case in cases.series)
    return SeriesInput(cases.series, cases.labels, cases.ids, frame.shape[1] if whole else None)


def read_frame(frame: Any, *, name: str, columns: Columns = BY_NAME) -> Cases:
    """Return the series of a pandas frame, wide or long; see `read_table`.

    A row index with two levels is (id, time), and the columns of a table with two levels are (channel, time). An index of
    one level is a column only where its name is that of an id, a time or a label.

    Raises:
        InputError: see `read_table`; or the rows are times, or an index has more than two levels.
    """
    frame, columns = _index_to_columns(frame, name, columns)
    if frame.columns.nlevels > 1:
        return _read_channel_columns(frame, name, columns)
    return read_table(FrameTable(name, [str(column) for column in frame.columns], frame, columns=columns))


def _index_to_columns(frame: Any, name: str, columns: Columns) -> tuple[Any, Columns]:
    """Return the frame with the index levels that are an id, a time or a label as columns."""
    import pandas

    index = frame.index
    levels = [None if level is None else str(level).strip().lower() for level in index.names]
    chosen = {name.strip().lower() for name in (columns.id, columns.time, columns.label) if name}
    if index.nlevels > 2:
        raise InputError(f"{name} has an index of {index.nlevels} levels; keep two, id and time, or one row per series")
    if index.nlevels == 2 and chosen.isdisjoint(levels) and not set(levels) & set(LABELS):
        ordered = [1, 0] if levels[0] in TIMES or levels[1] in IDS else [0, 1]
        names = dict(zip(ordered, ("id", "time"), strict=True))
        frame, levels = frame.set_axis(index.set_names([names[0], names[1]])), ["id", "time"]
        columns = Columns("id", "time", columns.label, columns.channels)
    if any(level in (*IDS, *TIMES, *LABELS, *chosen) for level in levels):
        try:
            return frame.reset_index(), columns
        except ValueError as error:
            raise InputError(f"{name} has an index that is called like a column ({error}); rename one of them") from error
    if isinstance(index, (pandas.DatetimeIndex, pandas.PeriodIndex)):
        roles = {str(column).strip().lower() for column in frame.columns}
        if roles.isdisjoint(TIMES) and columns.time is None:
            raise InputError(
                f"{name} has times as rows; pass {name}.to_numpy().T[None] for one series with a channel per column, "
                f"or {name}.reset_index(drop=True) if each row is a series"
            )
    return frame, columns


def _read_channel_columns(frame: Any, name: str, columns: Columns) -> Cases:
    """Return the series of a frame whose columns have two levels, (channel, time)."""
    if frame.columns.nlevels > 2:
        raise InputError(f"{name} has columns of {frame.columns.nlevels} levels; keep two, channel and time")
    levels = [None if level is None else str(level).strip().lower() for level in frame.columns.names]
    channel_level = 1 if levels[0] in TIMES else 0
    single = [column for column in frame.columns if str(column[1 - channel_level]) == ""]  # id and label after reset_index
    attributes = frame[single].copy()
    attributes.columns = [str(column[channel_level]) for column in single]
    values = frame.drop(columns=single)
    channels = list(dict.fromkeys(values.columns.get_level_values(channel_level)))
    parts = [values.xs(channel, axis=1, level=channel_level) for channel in channels]
    if not parts or any(list(part.columns) != list(parts[0].columns) for part in parts):
        raise InputError(f"{name} has channels of unequal times as columns; fill the missing times with NaN")
    tables = [FrameTable(name, [f"{channel} {time}" for time in part.columns], part) for channel, part in zip(channels, parts, strict=True)]
    stacked = [np.column_stack([column_numbers(table, column) for column in range(len(table.names))]) for table in tables]
    names = list(attributes.columns)
    id_column = find_column(name, names, (columns.id.lower(),) if columns.id else IDS)
    label = find_column(name, names, (columns.label.lower(),) if columns.label else LABELS)
    labels, ids = (None if column is None else attributes.iloc[:, column].to_numpy() for column in (label, id_column))
    return Cases(list(np.stack(stacked, axis=1)), labels, ids)


def _is_table(X: Any) -> bool:
    """Whether X is a table of pandas, polars (also lazy), pyarrow or a library like them."""
    pandas = sys.modules.get("pandas")  # not imported: users with a frame have imported it
    if pandas and isinstance(X, pandas.DataFrame):
        return True
    lazy = hasattr(X, "collect") and hasattr(X, "collect_schema")
    return not isinstance(X, type) and (lazy or (hasattr(X, "to_pandas") and hasattr(X, "schema")))


def _ordered_axes(X: Any) -> np.ndarray:
    """Return the values of an xarray.DataArray as (cases, [channels,] time)."""
    dims = [str(dim) for dim in X.dims]
    time = [dim for dim in dims if dim.lower() in TIME_DIMS]
    channels = [dim for dim in dims if dim.lower() in CHANNEL_DIMS]
    cases = [dim for dim in dims if dim not in time + channels]
    if len(time) != 1 or len(channels) > 1 or len(cases) > 1 or len(dims) < 2:
        example = f"({IDS[0]}, channel, time)"
        raise InputError(f"X has the dimensions ({', '.join(dims)}); name them {example}, or pass X.values with axes in this order")
    array = as_numbers(X.transpose(*cases, *channels, *time).values, name="X")
    return array if cases else array[None]


def _warn_of_swapped_axes(case: np.ndarray) -> None:
    channels, time = case.shape
    if channels >= WIDE_RATIO * time and channels > WIDE_RATIO:
        log.warning("cases have %d channels of %d time points; if time is another axis, transpose: time is the last axis", channels, time)


def _kind(x: Any) -> str:
    return "None" if x is None else f"of type {type(x).__name__}"
