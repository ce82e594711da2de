"""Charts of numbers with their spread over seeds, against a number or against names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nutime_jax.report.figures import COLOURS, LINES, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = ("o", "s", "^", "D", "v")
COLUMNS = 2
"""Panels side by side."""


class Panel(NamedTuple):
    """A chart.

    places: numbers, which are joined by lines, or names, at which points stand side by side.
    lines: label -> a value a place, or (value, deviation, …); NaN is left out.
    log: the axes that are logarithmic: "", "x", "y" or "xy".
    limits: lowest and highest of the upright axis; None where it is free.
    """

    title: str
    xlabel: str
    ylabel: str
    places: Sequence[float] | Sequence[str]
    lines: Mapping[str, Sequence]
    log: str = ""
    limits: tuple[float | None, float | None] = (None, None)


@styled
def draw_panels(panels: Sequence[Panel]) -> "Figure":
    """Panels with one legend, lines of one label in one colour."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    wide = 7.2 if columns == 1 else 4.6 * columns
    figure = Figure(figsize=(wide, 2.7 * rows + 0.3 + 0.2 * (len(labels) // 4)), layout="constrained")
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        draw = _draw_names if isinstance(panel.places[0], str) else _draw_curves
        draw(axes, panel, labels)
        axes.set_title(panel.title, loc="left")
        axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, ylim=panel.limits)
        axes.grid(axis="y", color="#d9dee4", linewidth=0.6)
    if len(labels) > 1:
        found = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        handles = [found[plain(label)] for label in labels]
        figure.legend(handles, list(map(plain, labels)), loc="outside upper left", ncols=min(4, len(labels)), frameon=False)
    return figure


def _draw_curves(axes: "Axes", panel: Panel, labels: Sequence[str]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for label, line in panel.lines.items():
        number = labels.index(label)
        values, deviations = _apart(line)
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)], "linewidth": 1.2}
        axes.plot(panel.places, values, marker="." if len(values) <= 10 else None, label=plain(label), **look)
        if not np.isnan(deviations).all():
            axes.fill_between(panel.places, values - deviations, values + deviations, color=look["color"], alpha=0.15, linewidth=0)
    for name, axis, rescale in (("x", axes.xaxis, axes.set_xscale), ("y", axes.yaxis, axes.set_yscale)):
        if name in panel.log:
            rescale("log")
            # Of many decades, whose ticks would be most of the file.
            axis.set_major_locator(LogLocator(numticks=6))
            axis.set_minor_locator(NullLocator())


def _draw_names(axes: "Axes", panel: Panel, labels: Sequence[str]) -> None:
    """Points beside each other at every name, so that none hides another."""
    places, step = np.arange(len(panel.places)), 0.6 / max(len(panel.lines), 2)
    for order, (label, line) in enumerate(panel.lines.items()):
        number = labels.index(label)
        values, deviations = _apart(line)
        shift = (order - (len(panel.lines) - 1) / 2) * step
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number // len(COLOURS) % len(MARKS)], "markersize": 5}
        spreads = None if np.isnan(deviations).all() else np.nan_to_num(deviations)
        axes.errorbar(places + shift, values, spreads, linestyle="none", label=plain(label), **look)
    long = sum(map(len, panel.places)) > 60
    axes.set_xticks(places, list(map(plain, panel.places)), rotation=30 if long else 0, ha="right" if long else "center", fontsize=8)
    axes.set_xlim(-0.6, len(places) - 0.4)


def _apart(line: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Values and deviations, which are NaN where there are none."""
    pairs = [tuple(one)[:2] if isinstance(one, Sequence) else (one, np.nan) for one in line]
    values, deviations = np.array(pairs, float).reshape(-1, 2).T
    return values, deviations
