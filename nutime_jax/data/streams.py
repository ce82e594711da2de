"""Series of sources that need not fit in memory, in blocks: Parquet, .npz and .npy files, and corpora."""

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from nutime_jax.data.columns import FrameTable, assign_roles
from nutime_jax.data.datasets import DatasetFiles, id_texts, label_texts, text_cases
from nutime_jax.data.formats import (
    DAMAGE,
    check_shapes,
    file_suffix,
    labels_beside,
    open_parquet,
    parquet_errors,
    read_file,
    read_npz,
    split_names,
)
from nutime_jax.data.series import Cases
from nutime_jax.data.tables import read_table
from nutime_jax.errors import InputError, extra, first_line

BLOCK_BYTES = 16 << 20
"""Bytes of series per block."""
SAMPLE_ROWS = 64
"""Rows from which the size of a Parquet file is estimated."""
WHOLE_BYTES = 64 << 20
"""A long table up to this size is read in one piece, and may have its rows in any order."""


@dataclass(frozen=True)
class Stream:
    """Cases as a source has them, in blocks; their number, where it is known."""

    blocks: Iterator[Cases]
    count: int | None = None


def open_corpus_stream(folder: Path) -> Stream:
    """Return the records of a corpus that `nutime data build` wrote, with their classes as labels.

    Raises:
        InputError: see `corpus.open_built`.
    """
    from nutime_jax.data.corpus import open_built

    corpus = open_built(folder)
    classes = np.repeat([name for part in corpus.parts for name, _ in part.card["classes"]], corpus.class_sizes)
    size = max(1, BLOCK_BYTES // (4 * corpus.max_length))

    def blocks() -> Iterator[Cases]:
        for first in range(0, len(corpus), size):
            indices = np.arange(first, min(first + size, len(corpus)))
            # Only float64 represents the sum of values and an offset.
            series = [values + np.float64(offset) if offset else values for values, offset in corpus.read(indices)]
            yield Cases(series, classes[indices])

    return Stream(blocks(), len(corpus))


def is_corpus(folder: Path) -> bool:
    """Return whether a folder is one that `nutime data build` wrote, or one of its parts."""
    return (folder / "series_corpus").is_dir() or (folder / "dataset_info.json").is_file()


def open_stream(files: DatasetFiles, split: str) -> Stream:
    """Return the cases of one split as `DatasetFiles.read_raw` reads them; large files of some formats in blocks.

    Raises:
        InputError: here or when a block is drawn: the split is absent, or a file does not have the format of its suffix.
    """
    open_blocks = {".npz": _stream_npz, ".npy": _stream_npy, ".parquet": _stream_parquet}
    stream = open_blocks.get(file_suffix(files.path(split)), _stream_whole)(files, split)
    if stream.count == 0:
        raise InputError(f"{files.path(split)} has no series; pass a file with one or more")
    return stream


def _stream_whole(files: DatasetFiles, split: str) -> Stream:
    path = files.path(split)
    cases = text_cases(read_file(path, split, files.columns), f"{path} ({split})")
    return Stream(iter([cases]), len(cases.series))


def _stream_npz(files: DatasetFiles, split: str) -> Stream:
    path = files.path(split)
    try:
        with path.open("rb") as content, np.lib.npyio.NpzFile(content, allow_pickle=False) as file:
            x, y = split_names(file.files, split)
            members = [name for name in file.zip.namelist() if name in (x, f"{x}.npy")]
            labels = np.asarray(file[y]) if y in file else None
    except DAMAGE as error:
        raise _damaged(path, error) from error
    if not members:
        read_npz(path, split)  # raises an error with the names of the arrays
    return _stream_array(files, split, NpyBlockReader(path, member=members[0]), labels)


def _stream_npy(files: DatasetFiles, split: str) -> Stream:
    path = files.path(split)
    return _stream_array(files, split, NpyBlockReader(path), labels_beside(path))


def _stream_array(files: DatasetFiles, split: str, reader: "NpyBlockReader", labels: np.ndarray | None) -> Stream:
    path = files.path(split)
    with reader:
        check_shapes(path, reader.shape, labels)
        rows_are_contiguous = not reader.by_columns or min(reader.shape) == 0
    if not rows_are_contiguous:
        return _stream_whole(files, split)
    texts = None if labels is None else label_texts(labels)[0]

    def blocks() -> Iterator[Cases]:
        first = 0
        with reader:
            for block in reader:
                yield Cases(list(block), None if texts is None else texts[first : first + len(block)])
                first += len(block)

    return Stream(blocks(), reader.shape[0])


class NpyBlockReader:
    """Context manager that iterates over an array in NumPy's format, in blocks of rows.

    Args:
        path: a .npy file, or a .npz file whose `member` is read.

    shape, dtype, by_columns (Fortran order): of the array, once the reader was entered.
    """

    def __init__(self, path: Path, *, member: str | None = None):
        self.path, self.member = path, member

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._file = self._open(stack)
                version = np.lib.format.read_magic(self._file)
                readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                self.shape, self.by_columns, self.dtype = readers[version](self._file)
                if self.dtype.hasobject:
                    raise ValueError("it has objects")
            except DAMAGE as error:
                raise _damaged(self.path, error) from error
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> IO[bytes]:
        if self.member is None:
            return stack.enter_context(self.path.open("rb"))
        return stack.enter_context(stack.enter_context(zipfile.ZipFile(self.path)).open(self.member))

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=object))
        size = max(1, BLOCK_BYTES // max(row_bytes, 1))
        for first in range(0, self.shape[0], size):
            yield self._read_rows(first, min(size, self.shape[0] - first), row_bytes)

    def _read_rows(self, first: int, count: int, row_bytes: int) -> np.ndarray:
        try:
            content = self._file.read(count * row_bytes)
            if len(content) < count * row_bytes:
                raise ValueError(f"it ends after {first + len(content) // max(row_bytes, 1)} of {self.shape[0]} series")
            return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])
        except DAMAGE as error:
            raise _damaged(self.path, error) from error


def _stream_parquet(files: DatasetFiles, split: str) -> Stream:
    path = files.path(split)
    with parquet_errors(path):
        file = open_parquet(path, pre_buffer=False, buffer_size=1 << 16)
        names, rows = file.schema_arrow.names, file.metadata.num_rows
        sample = next(file.iter_batches(batch_size=SAMPLE_ROWS), None)  # a damaged footer's own sizes would abort the process
    roles = assign_roles(replace(_schema_table(path, file.schema_arrow), columns=files.columns))
    size = rows * sample.nbytes // max(1, sample.num_rows) if sample else 0
    if not rows or (roles.long and (roles.id is None or size <= WHOLE_BYTES)):
        return _stream_whole(files, split)
    first = FrameTable(path, names, None, columns=files.columns)
    tables = _parquet_tables(first, file, step=max(1, min(rows, BLOCK_BYTES * rows // max(size, 1))))
    if roles.long:
        return Stream(text_cases(read_table(table), f"{path} ({split})") for table in _whole_series(tables, roles.id))
    if roles.label is None:
        return Stream(_wide_blocks(tables, None), rows)
    # All labels are read, since they determine together how each is written.
    with parquet_errors(path):
        labels = file.read(columns=[names[roles.label]]).to_pandas(ignore_metadata=True).iloc[:, 0].to_numpy()
    return Stream(_wide_blocks(tables, label_texts(labels)[0]), rows)


def _schema_table(path: Path, schema: Any) -> FrameTable:
    """Return a table of one row with the columns of a schema, lists where they have lists."""
    import pandas

    with extra("data"):
        import pyarrow

    kinds = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    cells = [[] if any(is_kind(column.type) for is_kind in kinds) else 0 for column in schema]
    return FrameTable(path, schema.names, pandas.DataFrame({i: pandas.Series([cell], dtype=object) for i, cell in enumerate(cells)}))


def _parquet_tables(table: FrameTable, file: Any, *, step: int) -> Iterator[FrameTable]:
    first, batches = 0, file.iter_batches(batch_size=step)
    while True:
        with parquet_errors(table.source):
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)
            frame = batch.to_pandas(ignore_metadata=True)
        yield replace(table, frame=frame, first=first)
        first += batch.num_rows


def _wide_blocks(tables: Iterator[FrameTable], labels: np.ndarray | None) -> Iterator[Cases]:
    first = 0
    for table in tables:
        cases = read_table(table)
        last = first + len(cases.series)
        yield Cases(cases.series, None if labels is None else labels[first:last], id_texts(cases.ids))
        first = last


def _whole_series(tables: Iterator[FrameTable], ids: int) -> Iterator[FrameTable]:
    """Yield long tables, cut where one series ends and the next begins.

    Raises:
        InputError: the rows of a series do not follow one another.
    """
    import pandas

    seen: set = set()
    rest: FrameTable | None = None
    for table in tables:
        if rest is not None:
            table = replace(rest, frame=pandas.concat([rest.frame, table.frame], ignore_index=True))
        column = table.frame.iloc[:, ids]
        others = np.flatnonzero((column != column.iloc[-1]).to_numpy())
        end = int(others[-1]) + 1 if len(others) else 0
        rest = replace(table, frame=table.frame.iloc[end:], first=table.first + end)
        if end:
            yield _unseen(replace(table, frame=table.frame.iloc[:end]), ids, seen)
    if rest is not None:
        yield _unseen(rest, ids, seen)


def _unseen(table: FrameTable, ids: int, seen: set) -> FrameTable:
    names = set(table.frame.iloc[:, ids].unique())
    if repeated := seen & names:
        raise InputError(f"{table.source} is too large for one piece, and the rows of series {repeated.pop()} are apart; sort it by id")
    seen |= names
    return table


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as {path.suffix} ({first_line(error)}); write it with NumPy, without objects")
