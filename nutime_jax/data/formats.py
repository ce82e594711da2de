"""One reader a format: a file and a split in, series and labels as they stand in the file out."""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from nutime_jax.data.tables import IDS, LABELS, TIMES, Read, Table, find_column, label_names, read_table
from nutime_jax.errors import InputError

MISSING = ("", "na", "n/a", "nan", "null", "none", "<na>", "?")
"""What a cell without a value holds, in any case of letters."""
DAMAGE = (zipfile.BadZipFile, zlib.error, TokenError, ValueError, KeyError, EOFError, OSError, RuntimeError, MemoryError)
"""What NumPy raises on files of arrays that are damaged, or none."""


def read_npz(path: Path, split: str) -> Read:
    """`X_train`, `y_train`, `X_test`, `y_test`; or `X` and `y`, which are the one split of the file."""
    try:
        with path.open("rb") as content, np.lib.npyio.NpzFile(content, allow_pickle=False) as file:
            x, y = split_names(file.files, split)
            arrays = {name: np.asarray(file[name]) for name in (x, y) if name in file}
            names = ", ".join(file.files)
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as .npz ({_line(error)}); write it with numpy.savez, without objects") from error
    if x not in arrays:
        raise InputError(f"{path} has no array {x}; it holds {names or 'nothing'}")
    check_shapes(path, arrays[x].shape, arrays.get(y))
    return Read(list(arrays[x]), arrays.get(y))


def split_names(names: Sequence[str], split: str) -> tuple[str, str]:
    """What series and labels of a split are called in a file of arrays with these names."""
    ending = "" if "X" in names and not {"X_train", "X_test"} & set(names) else f"_{split}"
    return f"X{ending}", f"y{ending}"


def array_names(path: Path) -> list[str]:
    """The names of the arrays of an .npz file, without reading these; none where it cannot be opened."""
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def read_npy(path: Path, split: str) -> Read:
    """One array (cases, time) or (cases, channels, time); labels where a `y_train.npy` lies beside `X_train.npy`."""
    x, y = _load_npy(path), labels_beside(path)
    check_shapes(path, x.shape, y)
    return Read(list(x), y)


def labels_beside(path: Path) -> np.ndarray | None:
    """The labels of `y_train.npy` beside `X_train.npy`, if they are there."""
    beside = path.with_name(f"y{path.name[1:]}")
    return _load_npy(beside) if path.stem.lower() in ("x", "x_train", "x_test") and beside.is_file() else None


def _load_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as .npy ({_line(error)}); write it with numpy.save, without objects") from error


def check_shapes(path: Path, x: tuple[int, ...], y: np.ndarray | None) -> None:
    """Raises InputError unless an array of shape x holds cases, and y, if any, a label for each."""
    if len(x) not in (2, 3) or (y is not None and y.shape != x[:1]):
        shapes = f"series {x}" + ("" if y is None else f" and labels {y.shape}")
        raise InputError(f"{path}: {shapes} should be (cases, [channels,] time) and (cases,)")


def read_ts(path: Path, split: str) -> Read:
    """The format of the UEA archive: a case a line, channels and label parted by colons."""
    from aeon.datasets import load_from_ts_file

    lines = _data_lines(path)
    try:
        x, y = load_from_ts_file(str(path), return_meta_data=False)
    except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
        cells = ((number, cell) for number, line in lines for part in line.split(":")[:-1] for cell in part.split(","))
        raise InputError(f"{_fault(path, cells)} cannot be read as .ts ({_line(error)}); correct the file") from error
    return Read(list(x), y if len(y) == len(x) else None)


def read_arff(path: Path, split: str) -> Read:
    """Weka's format, the label last: univariate, or with the channels of a case in one relational attribute."""
    from aeon.datasets import load_from_arff_file

    lines = _data_lines(path)
    for number, line in lines:
        # aeon would spread a channel of one value over all steps.
        if (found := _arff_lengths(line)) != (first := _arff_lengths(lines[0][1])) or len(set(found)) > 1:
            raise InputError(f"{path}, line {number} has channels of {found} values; all should have {first[0]}: fill up with ?")
    try:
        x, y = load_from_arff_file(str(path))
    except (ValueError, IndexError, TypeError, OSError) as error:
        cells = ((n, cell.strip("'\"")) for n, line in lines for cell in line.replace("\\n", ",").split(",")[:-1])
        raise InputError(f"{_fault(path, cells)} cannot be read as .arff ({_line(error)}); correct the file") from error
    return Read(list(x), np.array([label.strip("'\"") for label in y]))


def _arff_lengths(line: str) -> list[int]:
    """The number of values of each channel; the label follows the last."""
    *channels, last = line.split("\\n")
    return [channel.count(",") + 1 for channel in channels] + [last.count(",")]


def _data_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that hold cases, with their numbers."""
    lines = [(number, line.strip()) for number, line in enumerate(_text(path).split("\n"), 1)]
    start = next((i for i, (_, line) in enumerate(lines) if line.lower().startswith("@data")), None)
    if start is None:
        raise InputError(f"{path} has no line @data, and is no {path.suffix} file; give it the suffix of what it holds")
    return [(number, line) for number, line in lines[start + 1 :] if line]


def _fault(path: Path, cells: Iterator[tuple[int, str]]) -> str:
    """The file, and the line where the first cell stands that is not a number, if one does."""
    number = next((number for number, cell in cells if not _is_number(cell)), None)
    return f"{path}" if number is None else f"{path}, line {number},"


def read_csv(path: Path, split: str) -> Read:
    """A table with a header (see `tables`); without, a series a line: cells may be empty, and lines differ in length."""
    return _read_header(path, ",") or Read([_numbers(path, line, cells) for line, cells in _rows(path, ",")])


def read_tsv(path: Path, split: str) -> Read:
    """UCR, the label and then the values, a case a line; with a header, a table as in .csv."""
    return _read_header(path, "\t") or _read_ucr(path, "\t")


def read_txt(path: Path, split: str) -> Read:
    """UCR before 2018: as its .tsv, parted by commas or by white space."""
    return _read_ucr(path, "," if "," in _text(path).partition("\n")[0] else None)


def _read_ucr(path: Path, separator: str | None) -> Read:
    series, labels = [], []
    for line, (label, *cells) in _rows(path, separator):
        series.append(_numbers(path, line, cells, first=2))
        labels.append(label.strip())
    numeric = all(_is_number(label) for label in labels)
    return Read(series, np.array([_number(label) for label in labels] if numeric else labels))


def _read_header(path: Path, separator: str) -> Read | None:
    """The series of a table with a header; None where the first line is none."""
    import pandas

    rows = _rows(path, separator)
    start, names = next(rows, (0, []))
    if not names or not _is_header(names):
        return None
    lines = []
    for line, cells in rows:
        if len(cells) != len(names):
            ragged = f"{path}, line {line} is ragged: the header has {len(names)} cells, this line {len(cells)}"
            raise InputError(f"{ragged}; leave cells empty for what is missing")
        lines.append(line)
    missing = [spelling for one in MISSING for spelling in (one, one.upper(), one.title(), "NaN", "-nan", "-NaN")]
    label = find_column(path, names, label_names(names))  # where "null" may be the name of a class
    options = {"na_values": {place: missing for place in range(len(names)) if place != label}, "keep_default_na": False}
    options |= {"skipinitialspace": True, "encoding": "utf-8-sig", "float_precision": "round_trip", "low_memory": False, "index_col": False}
    try:
        frame = pandas.read_csv(path, sep=separator, header=None, names=range(len(names)), skiprows=start, **options)
    except pandas.errors.EmptyDataError:
        return Read([])
    except (pandas.errors.ParserError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table ({_line(error)}); correct the file") from error
    if len(frame) != len(lines):
        raise InputError(f"{path} cannot be read as a table ({len(frame)} rows on {len(lines)} lines); write cells without line breaks")
    return read_table(Table(path, names, frame, lines))


def _is_header(cells: list[str]) -> bool:
    """Whether a line names columns: by words alone, by a name that tables know, or as pandas does after its index."""
    names = [cell.strip().lower() for cell in cells]
    words = [name for name in names if name]
    indexed = names == ["", *map(str, range(len(words)))]
    return bool(words) and (indexed or not {*LABELS, *IDS, *TIMES}.isdisjoint(words) or not any(map(_is_number, words)))


def _rows(path: Path, separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """The lines of a text that are not blank, with their numbers, cut into cells; None cuts at white space."""
    file = io.StringIO(_text(path), newline="")
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True) if separator else None
    try:
        for number, cells in enumerate(reader or map(str.split, file), 1):
            if len(cells) > 1 or "".join(cells).strip():
                yield reader.line_num if reader else number, cells
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num} cannot be read as text in cells ({_line(error)}); correct the file") from error


def _numbers(path: Path, line: int, cells: list[str], *, first: int = 1) -> np.ndarray:
    """The cells of a line as float64; `first` is the column of the first."""
    try:
        return np.array([_number(cell) for cell in cells])
    except ValueError:
        column, cell = next((i, cell) for i, cell in enumerate(cells, first) if not _is_number(cell))
        where = f"{path}, line {line}, column {column}"
        raise InputError(f"{where}: {cell!r} is not a number; correct it, or leave the cell empty") from None


def _number(cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        if cell.strip().lower() not in MISSING:
            raise
        return np.nan
    if "_" in cell:
        raise ValueError(cell)  # a name like 1_2, which Python takes for twelve
    return number


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def read_parquet(path: Path, split: str) -> Read:
    """A table (see `tables`); a column of lists of numbers is a series a row as well."""
    import pyarrow.parquet

    return _read_arrow(path, lambda: pyarrow.parquet.ParquetFile(path, page_checksum_verification=True).read())


def read_feather(path: Path, split: str) -> Read:
    """A table, as `read_parquet`."""
    import pyarrow.feather

    return _read_arrow(path, lambda: pyarrow.feather.read_table(path))


def _read_arrow(path: Path, read) -> Read:
    import pyarrow

    try:
        table = read()
        table.validate(full=True)  # pandas would follow damaged offsets out of memory
        # Without pandas' notes on its index: an index of ids or of times is a column like any other.
        frame = table.to_pandas(ignore_metadata=True)
    except (pyarrow.ArrowException, ValueError, OSError, MemoryError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix} ({_line(error)}); write it anew") from error
    return read_table(Table(path, table.column_names, frame))


def _text(path: Path) -> str:
    """The text of a file, without the mark that Excel begins it with."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line} is not UTF-8 text; save the file as UTF-8, or give it the suffix of what it holds"
        ) from error
    if not text.strip():
        raise InputError(f"{path} is empty; remove it")
    return text


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


READERS = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".ts": read_ts,
    ".arff": read_arff,
    ".tsv": read_tsv,
    ".txt": read_txt,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".feather": read_feather,
}
"""By suffix; of two files that hold one split of a set, the earlier here is read."""
