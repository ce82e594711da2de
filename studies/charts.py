"""Charts of study results: curves over numbers and points at names, with standard deviations over seeds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nutime_jax.report.style import legend_above, line_style, log_scale, marker_style, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANEL_COLUMNS = 2


class Panel(NamedTuple):
    """One chart.

    ticks: numbers, whose values are joined by lines, or names, at which points are drawn next to each other.
    lines: label -> one value per tick, or (value, standard deviation, …) per tick; NaN is not drawn.
    log: logarithmic axes: "", "x", "y" or "xy".
    limits: lowest and highest y; None is chosen by matplotlib.
    """

    title: str
    xlabel: str
    ylabel: str
    ticks: Sequence[float] | Sequence[str]
    lines: Mapping[str, Sequence]
    log: str = ""
    limits: tuple[float | None, float | None] = (None, None)


@styled
def plot_panels(panels: Sequence[Panel]) -> "Figure":
    """Plot panels with a common legend; lines of one label have one colour."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    columns = min(MAX_PANEL_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width = 7.2 if columns == 1 else 4.6 * columns
    figure = Figure(figsize=(width, 2.7 * rows + 0.3 + 0.2 * (len(labels) // 4)), layout="constrained")
    handles = {}
    for index, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, index, title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel, ylim=panel.limits)
        plot = _plot_names if isinstance(panel.ticks[0], str) else _plot_curves
        handles |= plot(axes, panel, labels)
        axes.grid(axis="y")
    if len(labels) > 1:
        legend_above(figure, [handles[label] for label in labels], labels)
    return figure


def _plot_curves(axes: "Axes", panel: Panel, labels: Sequence[str]) -> dict[str, object]:
    handles = {}
    for label, line in panel.lines.items():
        values, deviations = _values_and_deviations(line)
        style = line_style(labels.index(label))
        marker = "." if len(values) <= 10 else None
        (handles[label],) = axes.plot(panel.ticks, values, marker=marker, linewidth=1.2, **style)
        if not np.isnan(deviations).all():
            axes.fill_between(panel.ticks, values - deviations, values + deviations, color=style["color"], alpha=0.15, linewidth=0)
    for name in panel.log:
        log_scale(axes, name)
    return handles


def _plot_names(axes: "Axes", panel: Panel, labels: Sequence[str]) -> dict[str, object]:
    """Points of all labels next to each other at every name, so that none hides another."""
    handles, ticks, step = {}, np.arange(len(panel.ticks)), 0.6 / max(len(panel.lines), 2)
    for order, (label, line) in enumerate(panel.lines.items()):
        values, deviations = _values_and_deviations(line)
        shift = (order - (len(panel.lines) - 1) / 2) * step
        bars = None if np.isnan(deviations).all() else np.nan_to_num(deviations)
        style = marker_style(labels.index(label))
        handles[label] = axes.errorbar(ticks + shift, values, bars, linestyle="none", markersize=5, **style)
    rotated = sum(map(len, panel.ticks)) > 60
    names = [plain(name) for name in panel.ticks]
    axes.set_xticks(ticks, names, rotation=30 if rotated else 0, ha="right" if rotated else "center", fontsize=8)
    axes.set_xlim(-0.6, len(ticks) - 0.4)
    return handles


def _values_and_deviations(line: Sequence) -> tuple[np.ndarray, np.ndarray]:
    pairs = [tuple(point)[:2] if isinstance(point, Sequence) else (point, np.nan) for point in line]
    values, deviations = np.array(pairs, float).reshape(-1, 2).T
    return values, deviations
