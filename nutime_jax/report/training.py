"""Metrics of runs over their steps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.report.figures import COLOURS, LINES, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = {
    "loss": "loss",
    "projection_std": "projection std (0 is collapse)",
    "probe_accuracy": "probe on training cases, accuracy in %",
    "grad_norm": "norm of the gradient",
}
"""What is drawn of the metrics of a run, in this order."""


@styled
def draw_training(workdirs: Sequence[Path]) -> "Figure":
    """Metrics of runs over their steps, a panel a metric, a line a run.

    Raises:
        InputError: a workdir has no metrics.
    """
    from matplotlib.figure import Figure

    runs = dict(zip(_tell_apart(workdirs), map(read_metrics, workdirs), strict=True))
    shown = {name: words for name, words in CURVES.items() if any(name in metrics for metrics in runs.values())}
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.4 * rows + 0.4), layout="constrained")
    for place, (name, words) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(rows, columns, place, sharex=figure.axes[0] if figure.axes else None)
        axes.set_title(words, loc="left")
        axes.set_xlabel("step")
        for number, (label, metrics) in enumerate(runs.items()):
            if name in metrics:
                steps, values = metrics[name]
                mark = "." if len(steps) <= 20 else None
                colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
                axes.plot(
                    steps, values * (100 if name == "probe_accuracy" else 1), color=colour, linestyle=line, marker=mark, label=plain(label)
                )
        _fit_axis(axes, name)
    if len(runs) > 1:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=min(4, len(runs)), frameon=False)
    return figure


def _fit_axis(axes: "Axes", name: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    if name in ("loss", "grad_norm") and all((line.get_ydata() > 0).all() for line in axes.lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    if name == "projection_std":
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#d9dee4", linewidth=0.6)


def read_metrics(workdir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Metric -> steps and values, of the `metrics.jsonl` of a workdir; a line that a kill has cut is passed over.

    Raises:
        InputError: there is none, or it holds no metrics.
    """
    path = workdir / "metrics.jsonl"
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{workdir} has no metrics.jsonl that can be read; give a workdir of `nutime pretrain`") from error
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            step = int(entry.pop("step"))
            found = {name: (step, float(value)) for name, value in entry.items()}
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        for name, point in found.items():
            points.setdefault(name, []).append(point)
    if not points.keys() & CURVES.keys():
        raise InputError(f"{path} holds no metrics of training; let the run take a few steps")
    return {name: (np.array([step for step, _ in found]), np.array([value for _, value in found])) for name, found in points.items()}


def _tell_apart(workdirs: Sequence[Path]) -> list[str]:
    """Names of runs; those of one name by their path."""
    names = [path.name for path in workdirs]
    labels = [path.name if names.count(path.name) == 1 else str(path) for path in workdirs]
    if len(set(labels)) < len(labels):
        raise InputError(f"workdir {next(one for one in labels if labels.count(one) > 1)} is given twice; give each once")
    return labels
