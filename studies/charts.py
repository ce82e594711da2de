"""Charts of results: curves and points with standard deviations, mean ranks, and method against method."""

import base64
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.report.style import INK, legend_above, line_style, log_scale, marker_style, plain, styled, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANEL_COLUMNS = 2
ABOVE, BELOW = "#0b6e8c", "#b3541e"
MIN_RANKED_DATASETS, MIN_RANKED_METHODS = 5, 3
"""Limits of a critical-difference diagram: on four datasets no Wilcoxon test reaches p < 1/16, and Holm needs 0.05."""


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


@styled
def plot_critical_difference(values: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Plot mean ranks on a line; bars join methods without a significant difference.

    The tests are the defaults of aeon: pairwise one-sided Wilcoxon signed-rank tests, Holm's correction, alpha 0.1.

    Args:
        values: shape (datasets, methods), higher is better, without NaN.
        labels: one per method.

    Raises:
        InputError: there are too few datasets or methods, or all methods are equal.
    """
    datasets, methods = values.shape
    if datasets < MIN_RANKED_DATASETS or methods < MIN_RANKED_METHODS:
        raise InputError(
            f"A critical-difference diagram needs {MIN_RANKED_METHODS} methods on {MIN_RANKED_DATASETS} common datasets; "
            f"the table has {methods} on {datasets}."
        )
    if (values == values[:, :1]).all():
        raise InputError("All methods are equal on every dataset: there is no difference to plot.")
    from aeon import visualisation
    from matplotlib import pyplot

    with warnings.catch_warnings():
        # Pairs that are equal on all datasets get a p-value of 1 and stay joined.
        warnings.filterwarnings("ignore", category=UserWarning, message="Estimators .* have the same performance")
        names = [_short(label) for label in labels]
        figure, axes = visualisation.plot_critical_difference(values, names, width=5, textspace=1.2)
    for text in axes.texts:
        text.set_fontsize(min(text.get_fontsize(), 11))
        if re.fullmatch(r"\d+\.\d{4}", text.get_text()):  # a rank; the page shows two decimals
            text.set_text(f"{float(text.get_text()):.2f}")
    pyplot.close(figure)
    return figure


@styled
def plot_method_scatter(x: np.ndarray, y: np.ndarray, *, labels: tuple[str, str]) -> "Figure":
    """Plot the values of two methods against each other, one point per dataset, in percent."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    low = min(x.min(), y.min())
    low, high = 100 * (low - 0.04 * (1 - low)), 102.0
    figure = Figure(figsize=(4.2, 4.2))
    ticks = [tick for tick in MaxNLocator(6, integer=True).tick_values(low, 100) if low <= tick <= 100]
    axes = figure.add_subplot(xlim=(low, high), ylim=(low, high), xticks=ticks, yticks=ticks, aspect="equal")
    axes.plot([low, high], [low, high], color="#9aa5b1", linewidth=1, zorder=1)
    colours = np.select([y > x, y < x], [ABOVE, BELOW], INK)
    axes.scatter(100 * x, 100 * y, c=list(colours), s=26, alpha=0.75, linewidths=0, zorder=2)
    axes.set(xlabel=_short(labels[0]), ylabel=_short(labels[1]))
    return figure


def _short(label: str) -> str:
    """Cut a label so that it leaves room for the figure."""
    return plain(label if len(label) <= 40 else f"{label[:39]}…")


def to_data_url(figure: "Figure") -> str:
    """Return a figure as an SVG image in a `data:` URL, for a page without other files."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Only the metrics come from matplotlib's font; the browser draws the glyphs.
        warnings.filterwarnings("ignore", category=UserWarning, message="Glyph")
        write_figure(figure, file, kind="svg", bbox_inches="tight", transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
