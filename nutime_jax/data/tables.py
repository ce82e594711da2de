"""Tables of series: *wide*, one row per series, and *long*, one row per time step."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nutime_jax.data.columns import NAMING, FrameTable, Roles, assign_roles, column_numbers, holds_lists, parse_numbers
from nutime_jax.data.series import Cases, as_numbers
from nutime_jax.errors import InputError

log = logging.getLogger(__name__)

SHORT = 10
"""Time points of series that are probably rows of a table whose columns are the series."""
MAX_FILL = 10
"""Maximum time points of a series after missing rows are filled in, per row that the table has."""


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
            f"{table.source} has a time column {table.names[roles.time]!r} but no id column; add `id`, the series of each row, name "
            "another column (--id_column), or pass one multichannel series as an array (1, channels, time)"
        )
    return _read_long(table, roles) if roles.long else _read_wide(table, roles)


def _read_wide(table: FrameTable, roles: Roles) -> Cases:
    if not roles.values:
        raise InputError(f"{table.source} has no column of numbers; a row is a series, a column a time step")
    labels = None if roles.label is None else table.frame.iloc[:, roles.label].to_numpy()
    ids = None if roles.id is None else table.frame.iloc[:, roles.id].to_numpy()
    if roles.lists:
        series = _read_lists(table, roles.values)
    else:
        roles = _without_texts(table, roles)
        values = np.column_stack([column_numbers(table, column) for column in roles.values])
        channels = _channel_groups([table.names[column] for column in roles.values])
        series = list(np.stack([values[:, group] for group in channels], 1) if channels else values)
        _warn_of_wide(table, roles)
    return Cases(series, labels, ids, roles=roles.describe(table.names))


def _read_lists(table: FrameTable, columns: list[int]) -> list[np.ndarray]:
    for column in columns:
        if not holds_lists(table, column):
            name = table.names[column]
            raise InputError(f"{table.source} has lists of numbers beside the column {name!r}; remove it, or name it ({NAMING})")
    return [_list_channels(table, columns, row) for row in range(len(table.frame))]


def _without_texts(table: FrameTable, roles: Roles) -> Roles:
    """Return the roles without columns of texts or dates that are not numbered as the others are: they describe the series."""
    columns = {column: table.frame.iloc[:, column] for column in _odd_columns(table, roles)}
    texts = [i for i, cells in columns.items() if len(cells) and cells.dtype.kind in "OMm" and np.isnan(parse_numbers(cells)[0]).all()]
    if texts and not table.first:
        names = ", ".join(table.names[column] for column in texts)
        log.warning(
            "column %s of %s has no numbers, and is ignored; if it is the label or the id, name it (%s)", names, table.source, NAMING
        )
    return replace(roles, values=[column for column in roles.values if column not in texts])


def _odd_columns(table: FrameTable, roles: Roles) -> list[int]:
    """Return the columns of values whose name no other column has, where others have one name and a number, as t0 and t1."""
    groups = [group for stem, group in _by_stem([table.names[column] for column in roles.values]).items() if stem or len(group) > 1]
    odd = [roles.values[group[0][1]] for group in groups if len(group) == 1]
    return odd if len(odd) < len(groups) else []


def _by_stem(names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Return number and position of columns by the name before the number, which x_0, x_1, y_0, y_1 have and dates have not."""
    stems: dict[str, list[tuple[str, int]]] = {}
    for position, name in enumerate(map(str.strip, names)):
        parts = re.fullmatch(r"(|\D.*?)[\W_]*(\d+)\W*", name)
        stem, number = ("", name) if name[:1].isdigit() else (name, "") if parts is None else parts.groups()
        stems.setdefault(stem, []).append((number, position))
    return stems


def _channel_groups(names: Sequence[str]) -> list[list[int]] | None:
    """Return the positions of the columns of each channel where names are a channel and a number, as x_0, x_1, y_0, y_1."""
    groups = [dict(group) for group in _by_stem(names).values()]
    numbers = groups[0].keys()
    if len(groups) < 2 or len(numbers) < 2 or any(group.keys() != numbers for group in groups) or len(groups) * len(numbers) < len(names):
        return None
    return [[group[number] for number in numbers] for group in groups]


def _warn_of_wide(table: FrameTable, roles: Roles) -> None:
    """Log what may be read otherwise than it is meant, in a table with one row per series and one column per time point."""
    source, names = table.source, [table.names[column] for column in roles.values]
    if table.first:
        return
    channels = _channel_groups(names)
    if channels:
        firsts = ", ".join(f"{names[group[0]]} …" for group in channels[:3])
        log.info("columns %s of %s are read as %d channels of %d time points", firsts, source, len(channels), len(channels[0]))
    if odd := [table.names[column] for column in _odd_columns(table, roles)]:
        sentence = "column %s of %s is read as values, as %s is; if it is the label or the id, name it (%s)"
        log.warning(sentence, ", ".join(odd[:3]), source, next(name for name in names if name not in odd), NAMING)
    ids = None if roles.id is None else table.frame.iloc[:, roles.id]
    if ids is not None and len(repeated := ids[ids.duplicated()]):
        sentence = "id %s of %s is in several rows, each read as a series; if rows are time steps, name the time (--time_column)"
        log.warning(sentence, repeated.iloc[0], source)
    if ids is None and roles.label is None:
        warn_of_short_rows(source, len(table.frame), len(channels[0] if channels else names))


def warn_of_short_rows(source: object, count: int, length: int) -> None:
    """Log that rows are read as series, where they are so short and many that the columns probably are."""
    if length == 1 < count or (length <= SHORT and count >= SHORT * length):
        sentence = "%s is read as %d series of length %d, one per row; if its columns are the series, transpose it"
        log.warning(sentence, source, count, length)


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
        raise InputError(
            f"{table.location(row)}: series {series} has time {time} twice; keep one of the rows, or write one column per channel"
        )
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
    if constant and not table.first:
        sentence = "column %s of %s is constant within every series; if it is the label, name it (%s)"
        log.warning(sentence, ", ".join(constant), table.source, NAMING)
    facts = {"roles": roles.describe(table.names), "unequal_steps": unequal}
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
        # 31.5.2024 has the day first; other ways of writing a date leave the order of day and month to guesswork.
        german = r"^\s*(\d\d?)\.(\d\d?)\.(\d{4})"
        texts = column.astype(str).str.replace(german, lambda match: f"{match[3]}-{match[2]:0>2}-{match[1]:0>2}", regex=True)
        dates = pandas.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        times = dates.dt.tz_localize(None).to_numpy()
    elif len(times):
        times = _compact_dates(times)
    missing = np.isnat(times) if times.dtype.kind in "mM" else np.isnan(times)
    if missing.any():
        row = int(np.argmax(missing))
        raise InputError(f"{table.cell(row, time)}: {str(column.iat[row])!r} is not a time; write numbers, or dates as 2024-05-31 12:00")
    return times


def _compact_dates(times: np.ndarray) -> np.ndarray:
    """Return dates for numbers like 20240531, also with hours and minutes, or hours, minutes and seconds; other numbers as they are."""
    import pandas

    for form, factor in (("%Y%m%d", 1), ("%Y%m%d%H%M", 10**4), ("%Y%m%d%H%M%S", 10**6)):
        if (times >= 19000101 * factor).all() and (times < 21010101 * factor).all() and (times % 1 == 0).all():
            dates = pandas.to_datetime(times.astype(np.int64).astype(str), format=form, errors="coerce")
            return times if dates.hasnans else dates.to_numpy()
    return times
