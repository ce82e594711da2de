"""What a study has found: tables of texts, numbers and spreads over seeds, and how they are said and written."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.report.figures import save_figure
from nutime_jax.report.result_figures import can_draw
from nutime_jax.storage import error_summary, storage_for


class Spread(NamedTuple):
    """Numbers of several seeds: their mean, their standard deviation (ddof 1; NaN for a single one), and how many they are."""

    mean: float
    deviation: float
    count: int


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """The spread of numbers, one a seed; NaN where there are none."""
    values = np.asarray(values, float)
    mean = float(values.mean()) if len(values) else math.nan
    return Spread(mean, float(values.std(ddof=1)) if len(values) > 1 else math.nan, len(values))


Cell = str | int | float | Spread


@dataclass(frozen=True)
class Table:
    """Lines of cells under headings; a heading whose cells are spreads is three columns of the CSV."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Findings:
    """What a study has to show.

    tables: name of the CSV file, without its suffix -> table. The first is the answer, and is called "table".
    shown: how many of them, from the first on, are said in the terminal and in `table.md`.
    draw: makes the figure, of matplotlib.
    notes: sentences that belong below the tables: what is left out, and what failed.
    """

    tables: Mapping[str, Table]
    draw: Callable[[], Any]
    shown: int = 1
    notes: tuple[str, ...] = ()


def write_findings(findings: Findings, out: Path) -> list[Path]:
    """Writes `table.md`, a CSV file a table and, where matplotlib is installed, `figure.svg`, each in one move; returns the paths.

    Raises:
        InputError: the folder cannot be written.
    """
    shown = list(findings.tables.values())[: findings.shown]
    page = "\n".join([*(_markdown(one) for one in shown), *(f"- {note}" for note in findings.notes)]).rstrip() + "\n"
    contents = {"table.md": page} | {f"{name}.csv": _csv(one) for name, one in findings.tables.items()}
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            storage_for(out).replace(out / name, text.encode())
            written.append(out / name)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error_summary(error)}); choose another --out") from error
    if can_draw():
        save_figure(findings.draw(), out / "figure.svg")
        written.append(out / "figure.svg")
    return written


def say(findings: Findings) -> str:
    """The tables that are shown, for a terminal, and the notes."""
    shown = list(findings.tables.values())[: findings.shown]
    return "\n\n".join([*(f"{one.title}\n\n{_plain(one)}" for one in shown), *findings.notes])


def cell_text(cell: Cell) -> str:
    """A cell for readers: one decimal, and the deviation behind the mean; of small numbers two digits; what is none is a dash."""
    if isinstance(cell, Spread):
        mean, deviation = ("–" if math.isnan(value) else f"{value:.1f}" for value in (cell.mean, cell.deviation))
        return mean if deviation == "–" else f"{mean} ± {deviation}"
    if isinstance(cell, float):
        return "–" if math.isnan(cell) else f"{cell:.1f}" if abs(cell) >= 1 or cell == 0 else f"{cell:.2g}"
    return str(cell)


def _texts(table: Table) -> list[list[str]]:
    return [list(table.columns), *([cell_text(cell) for cell in line] for line in table.lines)]


def _plain(table: Table) -> str:
    """Columns side by side: words to the left, numbers to the right."""
    rows = _texts(table)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    aside = [str.ljust if all(isinstance(line[i], str) for line in table.lines) else str.rjust for i in range(len(widths))]
    lines = ["  ".join(put(text, width) for put, text, width in zip(aside, row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _markdown(table: Table) -> str:
    """The table as a section of a page."""
    head, *rows = ([text.replace("|", "\\|") for text in row] for row in _texts(table))
    lines = [f"## {table.title}", "", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]
    return "\n".join(lines)


def _csv(table: Table) -> str:
    """The table with all digits: of a spread its mean, its deviation and its count; empty where a number is none."""
    spreads = [any(isinstance(line[i], Spread) for line in table.lines) for i in range(len(table.columns))]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    heads = [(name, f"{name} std", f"{name} seeds") if wide else (name,) for name, wide in zip(table.columns, spreads, strict=True)]
    writer.writerow([name for head in heads for name in head])
    for line in table.lines:
        cells = [
            tuple(cell) if isinstance(cell, Spread) else (cell, "", "") if wide else (cell,)
            for cell, wide in zip(line, spreads, strict=True)
        ]
        writer.writerow(["" if part != part else part for cell in cells for part in cell])
    return text.getvalue()
