"""Parts of Parquet files, which several workers read and write: consecutive row groups in, one file out.

Paths are local, or addresses such as gs://BUCKET/FOLDER, in file systems of Arrow.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from nutime_jax.data.features import arrow_table
from nutime_jax.errors import InputError, extra, first_line

if TYPE_CHECKING:
    import pandas

MAX_PART_ROWS, PARTS_PER_WORKER = 16_384, 16
"""A part is as many row groups as have this number of rows; fewer, if workers would otherwise have less than this number of parts."""


def list_parts(source: str, *, workers: int) -> list[dict[str, Any]]:
    """Return file, row groups and name of the output of each part of a file or folder, in order.

    Raises:
        InputError: there is no Parquet file with rows, or one is damaged.
    """
    with extra("data"):
        import pyarrow
        import pyarrow.fs
        import pyarrow.parquet

    files, path = _file_system(source)
    info = files.get_file_info(path)
    if info.type == pyarrow.fs.FileType.Directory:
        found = files.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
        paths = sorted(entry.path for entry in found if entry.is_file and entry.path.endswith(".parquet"))
    else:
        paths = [path] if info.is_file else []

    def group_rows(path: str) -> list[int]:
        try:
            with files.open_input_file(path) as file:
                metadata = pyarrow.parquet.read_metadata(file)
                return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as .parquet ({first_line(error)}); write it again") from error

    with ThreadPoolExecutor(16) as pool:
        rows = dict(zip(paths, pool.map(group_rows, paths), strict=True))
    least = min(MAX_PART_ROWS, sum(map(sum, rows.values())) // (PARTS_PER_WORKER * workers))
    parts = [(path, part) for path in paths for part in _join_groups(rows[path], least)]
    if not parts:
        raise InputError(f"{source} has no Parquet file with rows; pass a file, or a folder of files that end in .parquet")
    return [{"path": path, "groups": part, "name": f"{i:06d}.parquet"} for i, (path, part) in enumerate(parts)]


def _join_groups(rows: Sequence[int], least: int) -> Iterator[list[int]]:
    """Yield the indices of consecutive row groups with `least` rows or more; the last may have fewer, and none is empty."""
    part: list[int] = []
    for group, count in enumerate(rows):
        part += [group] if count else []
        if part and (group == len(rows) - 1 or sum(rows[i] for i in part) >= least):
            yield part
            part = []


def _file_system(address: str) -> tuple[Any, str]:
    """Return the file system of Arrow and the path of a local path or an address such as gs://BUCKET/FOLDER."""
    with extra("data"):
        import pyarrow.fs

    if "://" in address:
        return pyarrow.fs.FileSystem.from_uri(address)
    return pyarrow.fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(address))


def make_empty_folder(out: str) -> None:
    """Create the folder of the output.

    Raises:
        InputError: it has files, which would be mixed with the new ones.
    """
    with extra("data"):
        import pyarrow.fs

    files, folder = _file_system(out)
    files.create_dir(folder)
    if files.get_file_info(pyarrow.fs.FileSelector(folder)):
        raise InputError(f"{out} has files; choose another folder, or empty it")


def map_part(
    function: "Callable[[pandas.DataFrame], dict[str, np.ndarray]]", part: dict[str, Any], *, source: str, out: str, rows_per_batch: int
) -> None:
    """Write the columns that a function returns for each batch of rows of a part. The file appears when it is complete."""
    with extra("data"):
        import pyarrow.parquet

    (inputs, _), (outputs, folder) = _file_system(source), _file_system(out)
    pending, writer = f"{folder}/.{part['name']}", None
    with inputs.open_input_file(part["path"]) as rows, outputs.open_output_stream(pending) as sink, contextlib.ExitStack() as stack:
        file = pyarrow.parquet.ParquetFile(rows, page_checksum_verification=True)
        for batch in file.iter_batches(rows_per_batch, row_groups=[int(group) for group in part["groups"]]):
            table = arrow_table(function(batch.to_pandas(ignore_metadata=True)))
            if writer is None:
                writer = stack.enter_context(pyarrow.parquet.ParquetWriter(sink, table.schema, use_dictionary=False))
            writer.write_table(table)
    outputs.move(pending, f"{folder}/{part['name']}")
