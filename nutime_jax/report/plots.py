"""Figures of features, views and training runs."""

import functools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from nutime_jax.core.views import Crop, Views, random_crop, two_views
from nutime_jax.data.datasets import Cases
from nutime_jax.data.inspection import sort_labels
from nutime_jax.data.series import centre_to_float32, pad_series
from nutime_jax.errors import InputError
from nutime_jax.evaluation.explanations import AttentionMaps, Occlusion
from nutime_jax.report.style import COLOURS, INK, LINES, legend_above, line_style, log_scale, marker_style, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROJECTIONS = ("pca", "tsne")
CURVES = {
    "loss": "loss",
    "projection_std": "projection std (0 is collapse)",
    "probe_accuracy": "probe on training cases, accuracy in %",
    "grad_norm": "gradient norm",
}
"""Metrics of a run that are plotted, in this order, with their titles."""


@styled
def plot_embedding(
    features: np.ndarray, labels: Sequence[str] | None, *, filled: np.ndarray | None = None, method: str = "pca", title: str = ""
) -> "Figure":
    """Plot features in two dimensions, one point per case, one colour per class.

    Args:
        features: shape (cases, features), at least three cases.
        labels: one per case, or None.
        filled: bool, shape (cases,): cases with a filled marker; None fills all.
        method: "pca" (a linear map of the standardised features) or "tsne" (shows neighbourhoods, not distances).

    Raises:
        InputError: there are too few cases, or the method is unknown.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    points, (xlabel, ylabel) = _project(features, method)
    filled = np.ones(len(points), bool) if filled is None else filled
    classes = np.array([""] * len(points) if labels is None else [str(label) for label in labels])
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, title=plain(title))
    handles = []
    for index, label in enumerate(sort_labels(classes.tolist())):
        style = marker_style(index)
        for fill, face in ((True, style["color"]), (False, "none")):
            chosen = points[(classes == label) & (filled == fill)]
            axes.scatter(*chosen.T, s=26, marker=style["marker"], facecolors=face, edgecolors=style["color"], linewidths=1, alpha=0.8)
        handles.append(Line2D([], [], linestyle="", label=plain(label), **style))
    if labels is not None:
        figure.legend(handles=handles, title="class", loc="outside right upper", ncols=1 + (len(handles) - 1) // 14, handletextpad=0.2)
    return figure


def check_projection(method: str) -> None:
    """Raise InputError unless `method` is one of PROJECTIONS."""
    if method not in PROJECTIONS:
        raise InputError(f"method {method!r} is unknown: choose one of {', '.join(PROJECTIONS)}.")


def _project(features: np.ndarray, method: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Return points of shape (cases, 2) and the names of the two axes."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    check_projection(method)
    if len(features) < 3:
        raise InputError(f"{len(features)} cases are too few to plot their features: pass at least 3.")
    scaled = StandardScaler().fit_transform(np.asarray(features, np.float64))
    if method == "tsne":
        perplexity = min(30.0, (len(scaled) - 1) / 3)
        with threadpool_limits(1):  # threads add in any order, and wait for each other
            return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(scaled), ("t-SNE 1", "t-SNE 2")
    pca = PCA(2, svd_solver="full")  # scikit-learn fixes its signs
    points = pca.fit_transform(scaled)
    first, second = (f"component {i} ({ratio:.0%} of the variance)" for i, ratio in enumerate(pca.explained_variance_ratio_, 1))
    return points, (first, second)


@styled
def plot_occlusion(found: Occlusion, *, title: str = "") -> "Figure":
    """Plot an explanation: each channel, and how much the probability drops where a window is occluded, averaged per time point."""
    from matplotlib.figure import Figure

    channels, length = found.case.shape
    drops, counts = np.zeros((channels, length)), np.zeros(length)
    for start, column in zip(found.starts, found.drops.T, strict=True):
        drops[:, start : start + found.size] += column[:, None]
        counts[start : start + found.size] += 1
    drops = 100 * drops / counts
    largest = max(np.abs(drops).max(), 1e-6)
    figure = Figure(figsize=(7.2, 0.9 + 1.3 * channels), layout="constrained")
    figure.suptitle(plain(title), fontsize=10, x=0.01, ha="left")
    grid = figure.subplots(channels, squeeze=False, sharex=True)[:, 0]
    for axes, values, drop in zip(grid, found.case, drops, strict=True):
        image = axes.imshow(
            drop[None],
            aspect="auto",
            cmap="PuOr_r",
            vmin=-largest,
            vmax=largest,
            alpha=0.6,
            extent=(-0.5, length - 0.5, values.min(), values.max() + 1e-9),
        )
        axes.plot(values, color=INK, linewidth=1.2)
        axes.set_ylabel("value")
    grid[-1].set_xlabel("time point")
    figure.colorbar(image, ax=list(grid), label="drop of the probability\nin percentage points")
    return figure


@styled
def plot_attention(found: AttentionMaps, *, title: str = "") -> "Figure":
    """Plot each channel, and below it the attention of the CLS token to each window, one row per layer, averaged over heads."""
    from matplotlib.figure import Figure

    channels, length = found.case.shape
    shares = 100 * found.weights[:, :, :, 0, 1:].mean(2)
    layers = shares.shape[1]
    figure = Figure(figsize=(7.2, 0.7 + (1.1 + 0.2 * layers) * channels), layout="constrained")
    figure.suptitle(plain(title), fontsize=10, x=0.01, ha="left")
    grid = figure.subplots(2 * channels, squeeze=False, sharex=True, height_ratios=[1.1, 0.2 * layers] * channels)[:, 0]
    extent = (-0.5, length - 0.5, layers + 0.5, 0.5)
    for upper, lower, values, share in zip(grid[::2], grid[1::2], found.case, shares, strict=True):
        upper.plot(values, color=INK, linewidth=1.2)
        upper.set_ylabel("value")
        image = lower.imshow(share, aspect="auto", cmap="Purples", vmin=0, vmax=shares.max(), extent=extent)
        lower.set(ylabel="block", yticks=range(1, layers + 1))
    grid[-1].set_xlabel("time point")
    figure.colorbar(image, ax=list(grid), label="attention of CLS in %")
    return figure


@styled
def plot_views(series: Sequence[np.ndarray], *, length: int, crop: tuple[float, float], seed: int = 0, title: str = "") -> "Figure":
    """Plot each series next to the two views that a training step makes of it.

    Args:
        series: one array of shape (time,) per row of the figure.
        length: time points per view.
        crop: lowest and highest ratio of a series that a view keeps.
        seed: seed of the crops.

    Raises:
        InputError: the list is empty.
    """
    from matplotlib.figure import Figure

    if not series:
        raise InputError("The list of series is empty. Pass at least one.")
    values, offsets = zip(*map(centre_to_float32, series), strict=True)
    padded, lengths = pad_series(list(values), max(map(len, values)))
    views, crops = _make_views(jax.random.key(seed), jnp.asarray(padded), jnp.asarray(lengths), length=length, crop=crop)
    views = np.asarray(views.values)[:, :, 0]
    starts, sizes = np.asarray(crops.start), np.asarray(crops.size)

    figure = Figure(figsize=(9.2, 0.7 + 1.5 * len(series)), layout="constrained")
    figure.suptitle(plain(title), fontsize=10, x=0.01, ha="left")
    grid = figure.subplots(len(series), 2, squeeze=False, sharex="col", sharey="row")
    for row, (left, right) in enumerate(grid):
        offset = np.float64(offsets[row])
        left.plot(values[row] + offset, color=INK, linewidth=1.2)
        left.set_ylabel("value")
        for view in range(2):
            start, colour = starts[row, view], COLOURS[view]
            end, bottom = start + sizes[row, view] - 1, 0.5 * (1 - view)
            left.axvspan(start, end, ymin=bottom, ymax=bottom + 0.5, color=colour, alpha=0.18, linewidth=0)
            if row == 0:
                left.text(start, 0.97 - 0.5 * view, f" view {view + 1}", color=colour, va="top", transform=left.get_xaxis_transform())
            right.plot(views[row, view] + offset, color=colour, linestyle=LINES[view], linewidth=1.4, label=f"view {view + 1}")
    grid[0, 0].set_title("series and the two crops")
    grid[0, 1].set_title(f"two views, resized to {length} points")
    grid[-1, 0].set_xlabel("time step of the series")
    grid[-1, 1].set_xlabel("time point of the view")
    grid[0, 1].legend(loc="best")
    return figure


@functools.partial(jax.jit, static_argnames=("length", "crop"))
def _make_views(key: jax.Array, padded: jax.Array, lengths: jax.Array, *, length: int, crop: tuple[float, float]) -> tuple[Views, Crop]:
    """Return the views of series and their crops, of shape (series, views), from equal keys."""
    views = two_views(key, padded, lengths, size=length, ratio=crop)
    sample_crops = jax.vmap(jax.vmap(functools.partial(random_crop, ratio=crop), (0, None)))
    return views, sample_crops(jax.random.split(key, (len(lengths), 2)), lengths)


def spread_over_classes(cases: Cases, count: int) -> list[int]:
    """Return indices of `count` cases: the first of every class, then the second of every class, and so on."""
    labels = [""] * len(cases.series) if cases.labels is None else cases.labels.tolist()
    order = {label: index for index, label in enumerate(sort_labels(labels))}
    seen: Counter[str] = Counter()
    ranks = []
    for label in labels:
        ranks.append((seen[label], order[label]))
        seen[label] += 1
    return sorted(range(len(labels)), key=ranks.__getitem__)[:count]


@styled
def plot_training(workdirs: Sequence[Path]) -> "Figure":
    """Plot metrics of runs over their steps, one panel per metric, one line per run.

    Raises:
        InputError: a workdir has no metrics, or is given twice.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    runs = dict(zip(_run_labels(workdirs), map(read_metrics, workdirs), strict=True))
    titles = {name: title for name, title in CURVES.items() if any(name in metrics for metrics in runs.values())}
    columns = min(2, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.4 * rows + 0.4), layout="constrained")
    for position, (name, title) in enumerate(titles.items(), 1):
        axes = figure.add_subplot(rows, columns, position, sharex=figure.axes[0] if figure.axes else None, title=title, xlabel="step")
        for index, (label, metrics) in enumerate(runs.items()):
            if name in metrics:
                steps, values = metrics[name]
                marker = "." if len(steps) <= 20 else None
                axes.plot(steps, values * (100 if name == "probe_accuracy" else 1), marker=marker, label=label, **line_style(index))
        if name in ("loss", "grad_norm") and all((line.get_ydata() > 0).all() for line in axes.lines):
            log_scale(axes, "y")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
        elif name == "projection_std":
            axes.set_ylim(bottom=0)
        axes.grid(axis="y")
    if len(runs) > 1:
        legend_above(figure, *figure.axes[0].get_legend_handles_labels())
    return figure


def read_metrics(workdir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read `metrics.jsonl` of a workdir as metric -> (steps, values). Lines that a crash has truncated are skipped.

    Raises:
        InputError: the file does not exist, or contains no metrics of training.
    """
    path = workdir / "metrics.jsonl"
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{workdir} has no metrics.jsonl that can be read. Pass a workdir of `nutime pretrain`.") from error
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            step = int(entry.pop("step"))
            values = {name: float(value) for name, value in entry.items()}
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        for name, value in values.items():
            points.setdefault(name, []).append((step, value))
    if not points.keys() & CURVES.keys():
        raise InputError(f"{path} contains no metrics of training. Let the run take a few steps.")
    return {name: (np.array([step for step, _ in pairs]), np.array([value for _, value in pairs])) for name, pairs in points.items()}


def _run_labels(workdirs: Sequence[Path]) -> list[str]:
    """Return the names of workdirs, or their paths where names are equal."""
    names = [path.name for path in workdirs]
    labels = [path.name if names.count(path.name) == 1 else str(path) for path in workdirs]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"Workdir {label} is given twice. Pass each workdir once.")
    return labels
