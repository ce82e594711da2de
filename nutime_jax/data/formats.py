"""File formats: one reader per format takes a file and a split, and returns the cases as the file has them."""

import csv
import gzip
import io
import logging
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.data.series import MISSING, Cases, is_number, parse_number
from nutime_jax.data.tables import BY_NAME, IDS, LABELS, TIMES, Columns, FrameTable, find_column, label_names, named_column, read_table
from nutime_jax.errors import InputError, extra, first_line

log = logging.getLogger(__name__)

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
    regression = re.search(r"^@targetlabel\s+true", _text(path), re.IGNORECASE | re.MULTILINE) is not None
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
    lines = [(number, line.strip()) for number, line in enumerate(_text(path).split("\n"), 1)]
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
    head = re.split(r"^\s*@data", _text(path), maxsplit=1, flags=re.IGNORECASE | re.MULTILINE)[0]
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / path.name
            plain.write_text(head + "@data\n" + "".join(f"{line}\n" for _, line in lines), encoding="utf-8")
            return load(str(plain))
    except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
        number = next((number for number, cell in cells if not is_number(cell)), None)
        where = f"{path}" if number is None else f"{path}, line {number},"
        raise InputError(f"{where} cannot be read as {path.suffix} ({first_line(error)}); correct the file") from error


def read_csv(path: Path, split: str, columns: Columns = BY_NAME) -> Cases:
    """Read a table with a header (see `tables`); without one, a series per line: cells may be empty, and lines differ in length."""
    layout = _text_layout(path, ",")
    cases = _read_header(path, layout, columns)
    if cases is None and columns != BY_NAME:
        raise InputError(f"{path} has no line of column names; write one, or pass no names of columns")
    return cases or Cases([_numbers(path, line, cells) for line, cells in _rows(path, layout)])


def read_tsv(path: Path, split: str, columns: Columns = BY_NAME) -> Cases:
    """Read UCR, one line per case, the label and then the values; with a header, a table as in .csv."""
    layout = _text_layout(path, "\t")
    return _read_header(path, layout, columns) or _read_ucr(path, layout)


def read_txt(path: Path, split: str) -> Cases:
    """Read UCR before 2018: as its .tsv, with commas or white space between cells."""
    return _read_ucr(path, TextLayout("," if "," in _text(path).partition("\n")[0] else None))


class TextLayout(NamedTuple):
    """Separator of cells (None is white space), decimal mark, and lines before the first row: comments and `sep=`."""

    separator: str | None
    decimal: str = "."
    skip: int = 0


def _text_layout(path: Path, separator: str) -> TextLayout:
    skip, lines = 0, _text(path).split("\n")
    for line in lines:
        if named := re.fullmatch(r"sep=(.)\s*", line, re.IGNORECASE):
            separator = named[1]
        elif line.strip() and not line.startswith("#"):
            break
        skip += 1
    first = next(iter(lines[skip:]), "")
    if separator == "," and ";" in first and not re.search(r"(?<!\d),|,(?!\d)", first):
        separator = ";"
    decimal = "," if separator == ";" and any(re.search(r"\d,\d", line) for line in lines[skip:]) else "."
    return TextLayout(separator, decimal, skip)


def _read_ucr(path: Path, layout: TextLayout) -> Cases:
    series, labels = [], []
    for line, (label, *cells) in _rows(path, layout):
        series.append(_numbers(path, line, cells, first=2))
        labels.append(label.strip())
    numeric = all(is_number(label) for label in labels)
    return Cases(series, np.array([parse_number(label) for label in labels] if numeric else labels))


def _read_header(path: Path, layout: TextLayout, columns: Columns) -> Cases | None:
    """Return the series of a table with a header; None where the first line is not one."""
    import pandas

    rows = _rows(path, layout)
    start, names = next(rows, (0, []))
    if not names or not _is_header(names, columns):
        return None
    lines = []
    for line, cells in rows:
        if len(cells) != len(names):
            ragged = f"{path}, line {line} is ragged: the header has {len(names)} cells, this line {len(cells)}"
            raise InputError(f"{ragged}; leave cells without a value empty")
        lines.append(line)
    if not lines and all(map(is_number, names)):  # a lone series 0, 1, 2, …
        return None
    if [name.strip() for name in names] == [str(column) for column in range(len(names))]:
        log.warning("the first line of %s, 0, 1, 2, …, is read as the names of columns; if it is a series, write 0.0, 1.0, 2.0, …", path)
    missing = [spelling for text in MISSING for spelling in (text, text.upper(), text.title(), "NaN", "-nan", "-NaN")]
    # "null" may be the name of a class.
    label = named_column(path, names, columns.label) if columns.label else find_column(path, names, label_names(names))
    empty_label = ["", "?"]
    options = {"na_values": {i: empty_label if i == label else missing for i in range(len(names))}, "keep_default_na": False}
    options |= {"skipinitialspace": True, "encoding": "utf-8-sig", "float_precision": "round_trip", "low_memory": False, "index_col": False}
    options |= {"sep": layout.separator, "decimal": layout.decimal, "header": None, "names": range(len(names)), "skiprows": start}
    try:
        frame = pandas.read_csv(path, **options)
    except pandas.errors.EmptyDataError:
        return Cases([])
    except (pandas.errors.ParserError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table ({first_line(error)}); correct the file") from error
    if len(frame) != len(lines):
        raise InputError(f"{path} cannot be read as a table ({len(frame)} rows on {len(lines)} lines); write cells without line breaks")
    return read_table(FrameTable(path, names, frame, lines, columns=columns))


def _is_header(cells: list[str], columns: Columns) -> bool:
    """Whether a line names columns: by texts alone, by a name with a role, or as pandas numbers them."""
    names = [cell.strip().lower() for cell in cells]
    words = [name for name in names if name]
    counted = [str(i) for i in range(len(words))]
    indexed = names == ["", *counted] or (names == counted and len(names) > 2)
    roles = {*LABELS, *IDS, *TIMES, *(name.lower() for name in (columns.id, columns.time, columns.label, *columns.channels) if name)}
    return bool(words) and (indexed or not roles.isdisjoint(words) or not any(map(is_number, words)))


def _rows(path: Path, layout: TextLayout) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a text that are not blank, with their numbers, cut into cells."""
    file = io.StringIO(_text(path), newline="")
    for _ in range(layout.skip):
        file.readline()
    reader = csv.reader(file, delimiter=layout.separator, skipinitialspace=True) if layout.separator else None
    try:
        for number, cells in enumerate(reader or map(str.split, file), 1):
            if len(cells) > 1 or "".join(cells).strip():
                if layout.decimal != ".":
                    cells = [re.sub(r"^\s*([-+]?\d*),(\d)", r"\1.\2", cell) for cell in cells]
                yield layout.skip + (reader.line_num if reader else number), cells
    except csv.Error as error:
        where = f"{path}, line {layout.skip + reader.line_num}"
        raise InputError(f"{where} cannot be read as text in cells ({first_line(error)}); correct the file") from error


def _numbers(path: Path, line: int, cells: list[str], *, first: int = 1) -> np.ndarray:
    """Return the cells of a line as float64; `first` is the column of the first cell, for error messages."""
    try:
        return np.array([parse_number(cell) for cell in cells])
    except ValueError:
        column, cell = next((i, cell) for i, cell in enumerate(cells, first) if not is_number(cell))
        where = f"{path}, line {line}, column {column}"
        raise InputError(f"{where}: {cell!r} is not a number; correct it, or leave the cell empty") from None


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


def _text(path: Path) -> str:
    """Return the text of a file, without a byte order mark."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
        text = content.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged archive ({first_line(error)}); compress it again") from error
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it does not fit into memory"
        raise InputError(f"{path} cannot be read ({reason}); check its permissions and its size") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line} is not UTF-8 text; save the file as UTF-8, or give it the suffix of its format") from error
    if not text.strip():
        raise InputError(f"{path} is empty; remove it")
    return text


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
