"""Reports of studies: tables of texts, numbers and statistics over seeds, printed and written to files."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.report.style import can_plot, save_figure
from nutime_jax.storage import error_summary, write_bytes


class SeedStats(NamedTuple):
    """Mean, standard deviation (ddof 1; NaN for one seed) and number of values over seeds."""

    mean: float
    deviation: float
    count: int


def seed_stats(values: Sequence[float] | np.ndarray) -> SeedStats:
    """Return the statistics of values, one per seed; the mean of no values is NaN."""
    values = np.asarray(values, float)
    mean = float(values.mean()) if len(values) else math.nan
    return SeedStats(mean, float(values.std(ddof=1)) if len(values) > 1 else math.nan, len(values))


Value = str | int | float | SeedStats


@dataclass(frozen=True)
class StudyTable:
    """Lines of values under column headings. A column of statistics becomes three columns of the CSV file."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class StudyReport:
    """Results of a study.

    tables: name of the CSV file, without suffix -> table. The first is the main result and is named "table".
    shown: number of tables, from the first, that are printed and written to `table.md`.
    draw: makes the matplotlib figure.
    notes: sentences below the tables: skipped datasets and failures.
    """

    tables: Mapping[str, StudyTable]
    draw: Callable[[], Any]
    shown: int = 1
    notes: tuple[str, ...] = ()

    @property
    def shown_tables(self) -> list[StudyTable]:
        """The tables that are printed."""
        return list(self.tables.values())[: self.shown]


def write_report(report: StudyReport, out: Path) -> list[Path]:
    """Write `table.md`, one CSV file per table and, if matplotlib is installed, `figure.svg`. Return the paths.

    Raises:
        InputError: the folder cannot be written.
    """
    sections = [_format_markdown(table) for table in report.shown_tables]
    page = "\n".join([*sections, *(f"- {note}" for note in report.notes)]).rstrip() + "\n"
    contents = {"table.md": page} | {f"{name}.csv": _format_csv(table) for name, table in report.tables.items()}
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            write_bytes(out / name, text.encode())
            written.append(out / name)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error_summary(error)}); choose another --out") from error
    if can_plot():
        save_figure(report.draw(), out / "figure.svg")
        written.append(out / "figure.svg")
    return written


def format_report(report: StudyReport) -> str:
    """Return the main tables and the notes as text for a terminal."""
    return "\n\n".join([*(f"{table.title}\n\n{_format_plain(table)}" for table in report.shown_tables), *report.notes])


def format_value(value: Value) -> str:
    """Return a value as text: one decimal, or two digits below 1; "mean ± deviation" for statistics; a dash for NaN."""
    if isinstance(value, SeedStats):
        mean, deviation = ("–" if math.isnan(number) else f"{number:.1f}" for number in (value.mean, value.deviation))
        return mean if deviation == "–" else f"{mean} ± {deviation}"
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        return f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"
    return str(value)


def _format_cells(table: StudyTable) -> list[list[str]]:
    return [list(table.columns), *([format_value(value) for value in line] for line in table.lines)]


def _format_plain(table: StudyTable) -> str:
    """Align columns: texts to the left, numbers to the right."""
    columns = []
    for number, column in enumerate(zip(*_format_cells(table), strict=True)):
        width = max(map(len, column))
        text = all(isinstance(line[number], str) for line in table.lines)
        columns.append([cell.ljust(width) if text else cell.rjust(width) for cell in column])
    head, *lines = ("  ".join(cells) for cells in zip(*columns, strict=True))
    return "\n".join([head.rstrip(), "-" * len(head), *(line.rstrip() for line in lines)])


def _format_markdown(table: StudyTable) -> str:
    head, *rows = ([text.replace("|", "\\|") for text in row] for row in _format_cells(table))
    lines = [f"## {table.title}", "", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]
    return "\n".join(lines)


def _format_csv(table: StudyTable) -> str:
    """Return all digits; statistics as mean, deviation and count; NaN as an empty field."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    wide = [any(isinstance(line[number], SeedStats) for line in table.lines) for number in range(len(table.columns))]
    writer.writerow([head for name, stats in zip(table.columns, wide, strict=True) for head in _csv_heads(name, stats)])
    for line in table.lines:
        writer.writerow([field for value, stats in zip(line, wide, strict=True) for field in _csv_fields(value, stats)])
    return text.getvalue()


def _csv_heads(name: str, stats: bool) -> tuple[str, ...]:
    return (name, f"{name} std", f"{name} seeds") if stats else (name,)


def _csv_fields(value: Value, stats: bool) -> tuple[Any, ...]:
    fields = tuple(value) if isinstance(value, SeedStats) else (value,)
    texts = ["" if isinstance(field, float) and math.isnan(field) else field for field in fields]
    return (*texts, *[""] * (3 * stats - len(texts)))
