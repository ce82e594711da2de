"""Charts of a report: mean ranks, and method against method."""

import base64
import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.report.style import INK, plain, styled, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOVE, BELOW = "#0b6e8c", "#b3541e"
MIN_RANKED_DATASETS, MIN_RANKED_METHODS = 5, 3
"""Limits of a critical-difference diagram: on four datasets no Wilcoxon test reaches p < 1/16, and Holm needs 0.05."""


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
