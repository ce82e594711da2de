"""Text files of series, .csv, .tsv and .txt: their separator and decimal mark, with a header or without."""

import csv
import gzip
import io
import json
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nutime_jax.data.columns import BY_NAME, IDS, LABELS, TIMES, Columns, FrameTable, find_column, label_names, named_column
from nutime_jax.data.series import MISSING, Cases, is_number, parse_number
from nutime_jax.data.tables import read_table, warn_of_short_rows
from nutime_jax.errors import InputError, first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextFile:
    """Text of a file, the separator of its cells (None is white space), its decimal mark, and the lines before the first row."""

    path: Path
    text: str
    separator: str | None
    decimal: str = "."
    skip: int = 0

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the lines that are not blank, with their numbers, cut into cells; lines of empty cells at the end are left out."""
        file = io.StringIO(self.text, newline="")
        for _ in range(self.skip):
            file.readline()
        reader = csv.reader(file, delimiter=self.separator, skipinitialspace=True) if self.separator else None
        empty = []
        try:
            for number, cells in enumerate(reader or map(str.split, file), 1):
                row = self.skip + (reader.line_num if reader else number), cells
                if "".join(cells).strip():
                    yield from empty
                    empty.clear()
                    yield row
                elif len(cells) > 1:
                    empty.append(row)
        except csv.Error as error:
            where = f"{self.path}, line {self.skip + reader.line_num}"
            raise InputError(f"{where} cannot be read as text in cells ({first_line(error)}); correct the file") from error
        if empty:
            log.warning("%s ends in %d lines of empty cells, which are left out", self.path, len(empty))

    def numbers(self, line: int, cells: list[str], *, first: int = 1) -> np.ndarray:
        """Return the cells of a line as float64; `first` is the column of the first cell, for error messages."""
        try:
            return np.array([parse_number(cell, self.decimal) for cell in cells])
        except ValueError:
            column, cell = next((i, cell) for i, cell in enumerate(cells, first) if not is_number(cell, self.decimal))
            remedy = "correct it, leave the cell empty, or write a first line of column names, with `label` or `id` above texts"
            raise InputError(f"{self.path}, line {line}, column {column}: {cell!r} is not a number; {remedy}") from None


def read_text(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        InputError: it is not UTF-8 text, it is a damaged archive, or it is empty.
    """
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
        raise InputError(
            f"{path}, line {line} is not UTF-8 text; save the file as UTF-8 (Excel: CSV UTF-8), or give it the suffix of its format"
        ) from error
    if not text.strip():
        raise InputError(f"{path} is empty; remove it")
    return text


def read_csv(path: Path, split: str, columns: Columns = BY_NAME) -> Cases:
    """Read a table with a header (see `tables`); without one, a series per line: cells may be empty, and lines differ in length."""
    file = _open(path, ",")
    cases = _read_header(file, columns)
    if cases is None and columns != BY_NAME:
        raise InputError(f"{path} has no line of column names; write one, or pass no names of columns")
    return cases or _read_lines(file)


def read_tsv(path: Path, split: str, columns: Columns = BY_NAME) -> Cases:
    """Read UCR, one line per case, the label and then the values; with a header, a table as in .csv."""
    file = _open(path, "\t")
    return _read_header(file, columns) or _read_ucr(file)


def read_txt(path: Path, split: str) -> Cases:
    """Read UCR before 2018: as its .tsv, with commas or white space between cells."""
    text = read_text(path)
    return _read_ucr(TextFile(path, text, "," if "," in text.partition("\n")[0] else None))


def _open(path: Path, separator: str) -> TextFile:
    """Return a text file that is cut at this separator, or at the one that its first lines have."""
    skip, named, text = 0, None, read_text(path)
    lines = text.splitlines()
    for line in lines:
        if match := re.fullmatch(r"sep=(.)\s*", line, re.IGNORECASE):
            named = match[1]
        elif line.strip() and not line.startswith("#"):
            break
        skip += 1
    first = [line for line in lines[skip : skip + 10] if line.strip()][:2]
    separator = named or _separator(first, separator)
    number = re.compile(r'\s*"?[-+]?\d*,\d+([eE][-+]?\d+)?"?\s*')
    decimal = separator != "," and any(number.fullmatch(cell) for line in lines[skip:] if "," in line for cell in line.split(separator))
    return TextFile(path, text, separator, "," if decimal else ".", skip)


def _separator(lines: Sequence[str], preferred: str) -> str | None:
    """Return the separator of the first lines; None is white space, as `numpy.savetxt` writes."""
    line = lines[0] if lines else ""
    between_cells = re.search(r"(?<!\d),|,(?!\d)", line)  # not a decimal comma
    if preferred in line and not (preferred == "," and not between_cells and re.search(r"[;\t]", line)):
        return preferred
    for separator in ("\t", ";", ",", "|"):
        if separator in line:
            return separator
    words = lines[-1].split() if lines else []
    return None if len(words) > 1 and sum(map(is_number, words)) >= len(words) - 1 else preferred


def _read_lines(file: TextFile) -> Cases:
    """Return one series per line of a file without a header."""
    rows = list(file.rows())
    series = [file.numbers(line, cells) for line, cells in rows]
    if len(series) > 1 and len(series[1]) > 2 and _equal_steps(rows[0][1]) and not _equal_steps(rows[1][1]):
        sentence = "the first line of %s, %s, …, has equal steps, and is read as a series; if it numbers the columns, remove it"
        log.warning(sentence, file.path, ", ".join(rows[0][1][:3]))
    warn_of_short_rows(file.path, len(series), max(map(len, series), default=0))
    for column, place in ((0, "first"), (-1, "last")):
        if _like_labels([values for values in series if len(values)], column):
            advice = "if it is the label, add a first line of column names, with `label`, or save label and values as .tsv"
            log.warning("the %s column of %s has whole numbers that repeat, and is read as values; %s", place, file.path, advice)
    return Cases(series)


def _like_labels(series: list[np.ndarray], column: int) -> bool:
    """Whether a column has few whole numbers, and the others have not."""
    if len(series) < 3 or min(map(len, series)) < 3:
        return False
    own = np.array([values[column] for values in series])
    others = np.concatenate([np.delete(values, column) for values in series[:100]])
    return bool((own % 1 == 0).all() and len(np.unique(own)) < len(own) and (others % 1 != 0).mean() > 0.5)


def _read_ucr(file: TextFile) -> Cases:
    series, labels = [], []
    for line, (label, *cells) in file.rows():
        series.append(file.numbers(line, cells, first=2))
        labels.append(label)
    return Cases(series, _parse_labels(labels))


def _parse_labels(cells: Iterable[Any]) -> np.ndarray:
    """Return labels as numbers if all are, None where missing; numbers like 01 stay text."""
    texts = [cell.strip() if isinstance(cell, str) else "" for cell in cells]
    if all(map(is_number, texts)) and not any(re.match(r"[-+]?0\d", text) for text in texts):
        whole = all(re.fullmatch(r"[-+]?\d+", text) for text in texts)
        return np.array([int(text) if whole else parse_number(text) for text in texts], object)
    return np.array([None if text in ("", "?") else text for text in texts], object)


def _read_header(file: TextFile, columns: Columns) -> Cases | None:
    """Return the series of a table with a header; None where the first line is not one."""
    path, rows = file.path, file.rows()
    start, names = next(rows, (0, []))
    if not names or not _is_header(names, columns, file.decimal):
        return None
    lines = []
    for line, cells in rows:
        if len(cells) != len(names):
            ragged = f"{path}, line {line} is ragged: the header has {len(names)} cells, this line {len(cells)}"
            raise InputError(f"{ragged}; leave cells without a value empty")
        lines.append(line)
    if not lines and all(is_number(name, file.decimal) for name in names):  # a lone series 0, 1, 2, …
        return None
    if names[0].strip() and any(map(is_number, names)) and not _has_roles(names, columns):
        shown, remedy = ", ".join(names[:3]), "write 0.0, 1.0, 2.0, …" if all(map(is_number, names)) else "add a line of names above it"
        log.warning("the first line of %s, %s, …, is read as the names of columns; if it is a series, %s", path, shown, remedy)
    label = named_column(path, names, columns.label) if columns.label else find_column(path, names, label_names(names))
    id_column = named_column(path, names, columns.id) if columns.id else find_column(path, names, IDS)
    frame = _read_frame(file, names, start, len(lines), texts=[column for column in (label, id_column) if column is not None])
    if label is not None:
        frame[label] = _parse_labels(frame[label])
    return read_table(FrameTable(path, names, frame, lines, columns=columns, decimal=file.decimal))


def _read_frame(file: TextFile, names: list[str], start: int, count: int, *, texts: list[int]) -> Any:
    """Return the rows below the header; the columns `texts` stay as they are written."""
    import pandas

    path = file.path
    missing = [*MISSING, *(text.upper() for text in MISSING)]
    options = {"na_values": {i: [""] if i in texts else missing for i in range(len(names))}, "keep_default_na": False}
    options |= {"skipinitialspace": True, "float_precision": "round_trip", "low_memory": False, "index_col": False}
    options |= {"sep": file.separator or r"\s+", "decimal": file.decimal, "dtype": dict.fromkeys(texts, str)}
    try:
        frame = pandas.read_csv(io.StringIO(file.text), header=None, names=range(len(names)), skiprows=start, **options)
    except pandas.errors.EmptyDataError:
        return pandas.DataFrame(columns=range(len(names)))
    except (pandas.errors.ParserError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table ({first_line(error)}); correct the file") from error
    if len(frame) < count or not frame.iloc[count:].isna().all(axis=None):
        raise InputError(f"{path} cannot be read as a table ({len(frame)} rows on {count} lines); write cells without line breaks")
    frame = frame if len(frame) == count else frame.iloc[:count].copy()
    for column in frame:
        if column in texts:
            frame[column] = frame[column].str.strip()
        elif frame[column].dtype.kind == "O":
            frame[column] = _parse_lists(frame[column])
    return frame


def _parse_lists(column: Any) -> Any:
    """Return a column of texts like [1, 2.5, 3], as pandas writes lists, as lists; any other column as it is."""
    if not all(isinstance(cell, str) and cell.startswith("[") for cell in column):
        return column
    try:
        return column.map(lambda cell: json.loads(cell.replace("nan", "NaN")))
    except ValueError:
        return column


def _is_header(cells: list[str], columns: Columns, decimal: str) -> bool:
    """Whether a line names columns: by texts alone, by a name with a role, as pandas numbers them, or by texts and times in equal steps."""
    names = [cell.strip() for cell in cells]
    words = [name for name in names if name]
    numbers = [name for name in words if is_number(name, decimal)]
    counted = words == [str(i) for i in range(len(words))] and (not names[0] or len(names) > 2)
    stepped = len(numbers) < len(words) and _equal_steps(numbers)
    return bool(words) and (not numbers or counted or stepped or _has_roles(names, columns))


def _has_roles(names: list[str], columns: Columns) -> bool:
    chosen = (name for name in (columns.id, columns.time, columns.label, *columns.channels) if name)
    return not {*LABELS, *IDS, *TIMES, *map(str.lower, chosen)}.isdisjoint(name.strip().lower() for name in names)


def _equal_steps(cells: list[str]) -> bool:
    """Whether three or more cells are numbers in equal steps."""
    if len(cells) < 3 or not all(map(is_number, cells)):
        return False
    steps = np.diff([parse_number(cell) for cell in cells])
    return bool(steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=0))
