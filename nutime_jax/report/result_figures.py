"""Figures of a report as SVG for a page: text stays text, nothing is fetched, names in one figure clash with no other's."""

import importlib.util
import io
import re
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from html import escape

import numpy as np

from nutime_jax.errors import InputError

INK, ABOVE, BELOW = "#1a2330", "#0b6e8c", "#b3541e"

LEAST_SETS, LEAST_METHODS = 5, 3
"""Below these a critical-difference diagram says nothing: on four sets no Wilcoxon test gets below 1/16, and Holm asks 0.05."""


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_critical_difference(values: np.ndarray, labels: Sequence[str], *, name: str) -> str:
    """Mean ranks on a line; bars join methods that do not differ (aeon's defaults: one-sided Wilcoxon, Holm, alpha 0.1).

    Args:
        values: shape (sets, methods), higher is better, none missing.
        name: of the figure on its page.

    Raises:
        InputError: there are too few sets or methods, or all methods are equal.
    """
    sets, methods = values.shape
    if sets < LEAST_SETS or methods < LEAST_METHODS:
        raise InputError(
            f"A critical-difference diagram needs {LEAST_METHODS} methods on {LEAST_SETS} common sets; here are {methods} on {sets}."
        )
    if (values == values[:, :1]).all():
        raise InputError("All methods are level on every set; there is no difference to draw.")
    from aeon.visualisation import plot_critical_difference

    with _style(), warnings.catch_warnings():
        # Of pairs that are level on all sets: they get a p-value of 1, and stay joined.
        warnings.filterwarnings("ignore", category=UserWarning, message="Estimators .* have the same performance")
        figure, axes = plot_critical_difference(values, [_plain(label) for label in labels], width=5, textspace=1.2)
        for text in axes.texts:
            text.set_fontsize(min(text.get_fontsize(), 11))
            text.set_text(re.sub(r"^(\d+\.\d\d)\d\d$", r"\1", text.get_text()))  # ranks to two decimals
        return _svg(figure, "Critical-difference diagram of mean ranks", name=name, least=480)


def draw_scatter(x: np.ndarray, y: np.ndarray, *, labels: tuple[str, str], name: str) -> str:
    """One point a set: the values of two methods against each other, in percent; above the diagonal the second is better."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    low = min(x.min(), y.min())
    low, high = 100 * (low - 0.04 * (1 - low)), 102.0
    with _style():
        figure = Figure(figsize=(4.2, 4.2))
        ticks = [tick for tick in MaxNLocator(6, integer=True).tick_values(low, 100) if low <= tick <= 100]
        axes = figure.add_subplot(xlim=(low, high), ylim=(low, high), xticks=ticks, yticks=ticks, aspect="equal")
        axes.plot([low, high], [low, high], color="#9aa5b1", linewidth=1, zorder=1)
        colours = np.select([y > x, y < x], [ABOVE, BELOW], INK)
        axes.scatter(100 * x, 100 * y, c=list(colours), s=26, alpha=0.75, linewidths=0, zorder=2)
        axes.set_xlabel(_plain(labels[0]))
        axes.set_ylabel(_plain(labels[1]))
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure, f"{labels[1]} against {labels[0]}, a point a set", name=name, least=280)


@contextmanager
def _style():
    import matplotlib

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "nutime",  # the same results give the same page, byte for byte
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Only measures are taken with matplotlib's font; the browser draws the letters with its own.
        warnings.filterwarnings("ignore", category=UserWarning, message="Glyph")
        yield


def _plain(label: str) -> str:
    """Text in which no dollar starts a formula, of a length that leaves room for the figure."""
    short = label if len(label) <= 40 else f"{label[:39]}…"
    return short.replace("$", r"\$")


def _svg(figure, title: str, *, name: str, least: int) -> str:
    """The figure as an element of a page: without addresses of schemas, which HTML does not need, and with ids of its own.

    It shrinks with the page down to `least` pixels, where its letters can still be read.
    """
    import matplotlib.pyplot as plt

    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    plt.close(figure)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    width = round(float(re.search(r'width="([\d.]+)pt"', text)[1]) * 4 / 3)
    size = f"width:{width}px;min-width:{min(width, least)}px"
    text = re.sub(r'<svg(?:\s+(?:width|height)="[^"]*")*', f'<svg role="img" style="{size}"', text, count=1)
    return text.replace(">", f"><title>{escape(title)}</title>", 1)
