"""Series of sources that need not fit in memory, in blocks: Parquet, .npz and .npy files, and corpora."""

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from nutime_jax.data.datasets import Cases, DatasetFiles, label_texts
from nutime_jax.data.formats import DAMAGE, READERS, check_shapes, labels_beside, read_npz, split_names
from nutime_jax.data.tables import IDS, TIMES, Table, find_column, label_names, read_table
from nutime_jax.errors import InputError

BLOCK_BYTES = 16 << 20
"""Bytes of series that are read at once."""
WHOLE_BYTES = 64 << 20
"""A long table up to this size is read whole, and may have its rows in any order."""


@dataclass(frozen=True)
class Stream:
    """Cases as they stand in a source, a block at a time; their number, where it is known."""

    blocks: Iterator[Cases]
    count: int | None = None


def open_corpus_stream(folder: Path) -> Stream:
    """The records of a corpus that `nutime data build` wrote, their classes as labels.

    Raises:
        InputError: see `corpus.open_built`.
    """
    from nutime_jax.data.corpus import open_built

    corpus = open_built(folder)
    classes = np.repeat([name for part in corpus.parts for name, _ in part.card["classes"]], corpus.class_sizes)
    size = max(1, BLOCK_BYTES // (4 * corpus.max_length))

    def blocks() -> Iterator[Cases]:
        for first in range(0, len(corpus), size):
            numbers = np.arange(first, min(first + size, len(corpus)))
            # Where something was taken from a series, only float64 holds it whole.
            series = [values + np.float64(offset) if offset else values for values, offset in corpus.read(numbers)]
            yield Cases(series, classes[numbers])

    return Stream(blocks(), len(corpus))


def is_corpus(folder: Path) -> bool:
    """Whether a folder is one that `nutime data build` wrote, or one of its parts."""
    return (folder / "series_corpus").is_dir() or (folder / "dataset_info.json").is_file()


def open_stream(files: DatasetFiles, split: str) -> Stream:
    """The cases of one split of a set, as `DatasetFiles.read_raw` reads them; large files of some formats in blocks.

    Raises:
        InputError: here or when a block is drawn: the split is absent, or a file does not hold what its name says.
    """
    path = files.path(split)
    streams = {".npz": _stream_npz, ".npy": _stream_npy, ".parquet": _stream_parquet}
    stream = streams.get(path.suffix.lower(), _stream_whole)(path, split)
    if stream.count == 0:
        raise InputError(f"{path} holds no series; give a file that holds some")
    return stream


def _stream_whole(path: Path, split: str) -> Stream:
    series, labels, ids = READERS[path.suffix.lower()](path, split)
    return Stream(iter([Cases(series, _texts(labels, path, split), _names(ids))]), len(series))


def _stream_npz(path: Path, split: str) -> Stream:
    try:
        with path.open("rb") as content, np.lib.npyio.NpzFile(content, allow_pickle=False) as file:
            x, y = split_names(file.files, split)
            members = [name for name in file.zip.namelist() if name in (x, f"{x}.npy")]
            labels = np.asarray(file[y]) if y in file else None
    except DAMAGE as error:
        raise _refusal(path, error) from error
    if not members:
        read_npz(path, split)  # says what is there instead
    stack = ExitStack()
    try:
        file = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(members[0]))
    except DAMAGE as error:
        raise _refusal(path, error) from error
    return _stream_array(path, split, file, labels, stack)


def _stream_npy(path: Path, split: str) -> Stream:
    stack = ExitStack()
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise _refusal(path, error) from error
    return _stream_array(path, split, file, labels_beside(path), stack)


def _stream_array(path: Path, split: str, file: IO[bytes], labels: np.ndarray | None, stack: ExitStack) -> Stream:
    """The rows of an array in NumPy's format, read a block at a time; the stack closes the file."""
    with stack:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, by_columns, dtype = read_header(file)
        except DAMAGE as error:
            raise _refusal(path, error) from error
        if dtype.hasobject:
            raise _refusal(path, ValueError("it holds objects"))
        check_shapes(path, shape, labels)
        if by_columns and min(shape) > 0:
            return _stream_whole(path, split)  # its rows do not follow one another
        texts, closing = _texts(labels, path, split), stack.pop_all()

    def blocks() -> Iterator[Cases]:
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=object))
        size = max(1, BLOCK_BYTES // max(row, 1))
        with closing:
            for first in range(0, shape[0], size):
                number = min(size, shape[0] - first)
                try:
                    content = file.read(number * row)
                    if len(content) < number * row:
                        raise ValueError(f"it ends after {first + len(content) // max(row, 1)} of {shape[0]} series")
                    series = np.frombuffer(content, dtype).reshape(number, *shape[1:])
                except DAMAGE as error:
                    raise _refusal(path, error) from error
                yield Cases(list(series), None if texts is None else texts[first : first + number])

    return Stream(blocks(), shape[0])


def _stream_parquet(path: Path, split: str) -> Stream:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 16)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as .parquet ({_line(error)}); write it anew") from error
    names, rows = file.schema_arrow.names, file.metadata.num_rows
    ids, times = (find_column(path, names, known) for known in (IDS, TIMES))
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    size = 8 * sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
    if not rows or (times is not None and (ids is None or size <= WHOLE_BYTES)):
        return _stream_whole(path, split)
    tables = _parquet_tables(path, file, names, step=max(1, min(rows, BLOCK_BYTES * rows // max(size, 1))))
    if times is not None:
        return Stream(_long_blocks(path, split, _whole_series(tables, ids)))
    label = find_column(path, names, label_names(names))
    # Read whole, since it is all of the labels that says how they are written.
    column = None if label is None else file.read(columns=[names[label]]).to_pandas(ignore_metadata=True).iloc[:, 0].to_numpy()
    return Stream(_wide_blocks(tables, _texts(column, path, split)), rows)


def _parquet_tables(path: Path, file: Any, names: list[str], *, step: int) -> Iterator[Table]:
    import pyarrow

    first = 0
    try:
        for batch in file.iter_batches(batch_size=step):
            batch.validate(full=True)
            yield Table(path, names, batch.to_pandas(ignore_metadata=True), first=first)
            first += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as .parquet ({_line(error)}); write it anew") from error


def _wide_blocks(tables: Iterator[Table], labels: np.ndarray | None) -> Iterator[Cases]:
    first = 0
    for table in tables:
        read = read_table(table)
        last = first + len(read.series)
        yield Cases(read.series, None if labels is None else labels[first:last], _names(read.ids))
        first = last


def _long_blocks(path: Path, split: str, tables: Iterator[Table]) -> Iterator[Cases]:
    for table in tables:
        read = read_table(table)
        yield Cases(read.series, _texts(read.labels, path, split), _names(read.ids))


def _whole_series(tables: Iterator[Table], ids: int) -> Iterator[Table]:
    """Long tables, cut where one series ends and the next begins.

    Raises:
        InputError: the rows of a series do not follow one another.
    """
    import pandas

    seen: set = set()
    held: Table | None = None
    for table in tables:
        if held is not None:
            table = Table(table.source, table.names, pandas.concat([held.frame, table.frame], ignore_index=True), first=held.first)
        column = table.frame.iloc[:, ids]
        others = np.flatnonzero((column != column.iloc[-1]).to_numpy())
        end = int(others[-1]) + 1 if len(others) else 0
        held = Table(table.source, table.names, table.frame.iloc[end:], first=table.first + end)
        if end:
            whole = Table(table.source, table.names, table.frame.iloc[:end], first=table.first)
            yield _unseen(whole, ids, seen)
    if held is not None:
        yield _unseen(held, ids, seen)


def _unseen(table: Table, ids: int, seen: set) -> Table:
    found = set(table.frame.iloc[:, ids].unique())
    if again := seen & found:
        raise InputError(f"{table.source} is too large to be read whole, and the rows of series {again.pop()} stand apart; sort it by id")
    seen |= found
    return table


def _texts(labels: np.ndarray | None, path: Path, split: str) -> np.ndarray | None:
    return None if labels is None else label_texts(np.asarray(labels), f"{path} ({split})")


def _names(ids: np.ndarray | None) -> np.ndarray | None:
    return None if ids is None else np.array([str(one) for one in ids])


def _refusal(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as {path.suffix} ({_line(error)}); write it with NumPy, without objects")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
