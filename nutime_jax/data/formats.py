"""File formats: one reader per format takes a file and a split, and returns the cases as the file has them."""

import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from nutime_jax.data.columns import BY_NAME, Columns, FrameTable
from nutime_jax.data.series import Cases, is_number
from nutime_jax.data.tables import read_table
from nutime_jax.data.text_tables import read_csv, read_text, read_tsv, read_txt
from nutime_jax.errors import InputError, extra, first_line

MAX_VALUES_PER_BYTE, MIN_VALUES = 1000, 1 << 24
"""Limits of the values in a Parquet file: by its size, and in any case."""
DAMAGE = (zipfile.BadZipFile, zlib.error, TokenError, ValueError, KeyError, EOFError, OSError, RuntimeError, MemoryError)
"""Exceptions of NumPy on files of arrays that are damaged, or not such files."""


def file_suffix(path: Path) -> str:
    """Return the suffix that selects the reader, in lower case; that of `a.csv.gz` is `.csv`."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix if name.endswith((".csv.gz", ".tsv.gz")) else path.suffix.lower()


def read_file(path: Path, split: str, columns: Columns = BY_NAME) -> Cases:
    """Return the cases of a file as it has them; `columns` gives roles to the columns of a table."""
    suffix = file_suffix(path)
    if suffix not in TABLES and columns != BY_NAME:
        raise InputError(f"{path} is not a table ({', '.join(TABLES)}); pass no names of columns")
    return READERS[suffix](path, split, *([columns] if suffix in TABLES else []))


def read_npz(path: Path, split: str) -> Cases:
    """Read `X_train`, `y_train`, `X_test`, `y_test`; or `X` and `y`, the only split of the file."""
    try:
        with path.open("rb") as content, np.lib.npyio.NpzFile(content, allow_pickle=False) as file:
            x, y = split_names(file.files, split)
            arrays = {name: np.asarray(file[name]) for name in (x, y) if name in file}
            names = ", ".join(file.files)
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as .npz ({first_line(error)}); write it with numpy.savez, without objects") from error
    if x not in arrays:
        raise InputError(f"{path} has no array {x}; its arrays are: {names or 'none'}")
    check_shapes(path, arrays[x].shape, arrays.get(y))
    return Cases(list(arrays[x]), arrays.get(y))


def split_names(names: Sequence[str], split: str) -> tuple[str, str]:
    """Return the names of the series and labels of a split in a file with these arrays."""
    ending = "" if "X" in names and not {"X_train", "X_test"} & set(names) else f"_{split}"
    return f"X{ending}", f"y{ending}"


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays of an .npz file without reading them; empty if it cannot be opened."""
    with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError), zipfile.ZipFile(path) as file:
        return [name.removesuffix(".npy") for name in file.namelist()]
    return []


def read_npy(path: Path, split: str) -> Cases:
    """Read an array (cases, time) or (cases, channels, time), and the labels of a `y_train.npy` beside `X_train.npy`."""
    x, y = _load_npy(path), labels_beside(path)
    check_shapes(path, x.shape, y)
    return Cases(list(x), y)


def labels_beside(path: Path) -> np.ndarray | None:
    """Return the labels of `y_train.npy` beside `X_train.npy`; None if absent."""
    beside = path.with_name(f"y{path.name[1:]}")
    return _load_npy(beside) if path.stem.lower() in ("x", "x_train", "x_test") and beside.is_file() else None


def _load_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as .npy ({first_line(error)}); write it with numpy.save, without objects") from error


def check_shapes(path: Path, x: tuple[int, ...], y: np.ndarray | None) -> None:
    """Raise InputError unless x is the shape of cases, and y, if given, has one label per case."""
    if len(x) not in (2, 3) or (y is not None and y.shape != x[:1]):
        shapes = f"series {x}" + ("" if y is None else f" and labels {y.shape}")
        raise InputError(f"{path}: {shapes} should be (cases, [channels,] time) and (cases,)")


def read_ts(path: Path, split: str) -> Cases:
    """Read the format of the UEA archive: one line per case, colons between channels and label."""
    with extra("data"):
        from aeon.datasets import load_from_ts_file

    lines = _data_lines(path, comment="#")
    regression = re.search(r"^@targetlabel\s+true", read_text(path), re.IGNORECASE | re.MULTILINE) is not None
    cells = ((number, cell) for number, line in lines for part in line.split(":")[:-1] for cell in part.split(","))
    x, y = _load_lines(path, lines, lambda plain: load_from_ts_file(plain, return_meta_data=False), cells)
    labels = np.array([None if label == "?" else label for label in y], object) if len(y) == len(x) else None
    return Cases(list(x), labels, regression=regression)


def read_arff(path: Path, split: str) -> Cases:
    """Read Weka's format, the label last: univariate, or with the channels of a case in one relational attribute."""
    with extra("data"):
        from aeon.datasets import load_from_arff_file

    lines = [(number, line.replace('"', "'")) for number, line in _data_lines(path, comment="%")]
    for number, line in lines:
        lengths, expected = _arff_lengths(line), _arff_lengths(lines[0][1])
        # aeon would repeat the value of a channel of one value at all time points.
        if lengths != expected or len(set(lengths)) > 1:
            raise InputError(f"{path}, line {number} has channels of {lengths} values; all should have {expected[0]}: fill up with ?")
    cells = ((n, cell.strip("'")) for n, line in lines for cell in line.replace("\\n", ",").split(",")[:-1])
    x, y = _load_lines(path, lines, load_from_arff_file, cells)
    labels = [label.strip("'\"") for label in y]
    return Cases(list(x), np.array([None if label == "?" else label for label in labels], object))


def _arff_lengths(line: str) -> list[int]:
    """Return the number of values of each channel; the label follows the last."""
    *channels, last = line.split("\\n")
    return [channel.count(",") + 1 for channel in channels] + [last.count(",")]


def _data_lines(path: Path, *, comment: str) -> list[tuple[int, str]]:
    """Return the lines after @data that have cases, with their numbers."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1)]
    start = next((i for i, (_, line) in enumerate(lines) if line.lower().startswith("@data")), None)
    if start is None:
        raise InputError(f"{path} has no line @data, and is not a {path.suffix} file; give it the suffix of its format")
    return [(number, line) for number, line in lines[start + 1 :] if line and not line.startswith(comment)]


def _load_lines(path: Path, lines: list[tuple[int, str]], load: Callable[[str], tuple], cells: Iterator[tuple[int, str]]) -> tuple:
    """Return the series and labels that aeon loads of these lines after @data; it does not read comments.

    cells: texts of values with their lines; an error names the line of the first that is not a number.
    """
    if not lines:
        return (), ()
    head = re.split(r"^\s*@data", read_text(path), maxsplit=1, flags=re.IGNORECASE | re.MULTILINE)[0]
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / path.name
            plain.write_text(head + "@data\n" + "".join(f"{line}\n" for _, line in lines), encoding="utf-8")
            return load(str(plain))
    except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
        number = next((number for number, cell in cells if not is_number(cell)), None)
        where = f"{path}" if number is None else f"{path}, line {number},"
        raise InputError(f"{where} cannot be read as {path.suffix} ({first_line(error)}); correct the file") from error


def open_parquet(path: Path, **options: Any) -> Any:
    """Return a `pyarrow.parquet.ParquetFile` that verifies its pages and would not fill the memory.

    Raises:
        ValueError: a few bytes stand for very many values; and the errors of pyarrow, see `parquet_errors`.
    """
    with extra("data"):
        import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True, **options)
    values, size = file.metadata.num_rows * file.metadata.num_columns, path.stat().st_size
    if values > max(MAX_VALUES_PER_BYTE * size, MIN_VALUES):
        raise ValueError(f"{size} bytes hold {values} values, which would fill the memory")
    return file


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn the errors of pyarrow and pandas on a damaged Parquet file into an InputError."""
    with extra("data"):
        import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, ValueError, KeyError, OverflowError, OSError, MemoryError) as error:
        raise InputError(f"{path} cannot be read as .parquet ({first_line(error)}); write it again") from error


def read_arrow(path: Path, split: str, columns: Columns = BY_NAME) -> Cases:
    """Read a table of Parquet or Feather (see `tables`); a column of lists of numbers is a channel of the series per row."""
    with extra("data"):
        import pyarrow
        import pyarrow.feather
        import pyarrow.parquet

    feather = path.suffix.lower() == ".feather"
    try:
        table = pyarrow.feather.read_table(path) if feather else open_parquet(path).read()
        table.validate(full=True)  # pandas would follow damaged offsets out of memory
        # Without pandas' notes on its index: an index of ids or of times is a column like any other.
        frame = table.to_pandas(ignore_metadata=True)
    except (pyarrow.ArrowException, ValueError, OSError, MemoryError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix} ({first_line(error)}); write it again") from error
    return read_table(FrameTable(path, table.column_names, frame, columns=columns))


READERS = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".ts": read_ts,
    ".arff": read_arff,
    ".tsv": read_tsv,
    ".txt": read_txt,
    ".csv": read_csv,
    ".parquet": read_arrow,
    ".feather": read_arrow,
}
"""Readers by suffix; of two files with the same split of a dataset, the first in this order is read."""
TABLES = (".tsv", ".csv", ".parquet", ".feather")
"""Formats with columns; their readers take `Columns` as well."""
