"""Figures of encoders and of runs: a function a figure, which gives a matplotlib figure that no window knows of.

Colours are told apart by colour-blind eyes (Okabe and Ito); classes and runs beyond their number get other marks. The same
input gives the same file.
"""

import contextlib
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from nutime_jax.augment import Crop, Views, random_crop, two_views
from nutime_jax.data.archives import Cases
from nutime_jax.data.inspection import in_order
from nutime_jax.data.series import pad_series, split_offset
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.nme import embed_scalar, scale_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1a2330"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = ("o", "^", "s", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
STYLE = {
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "nutime",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
METHODS = ("pca", "tsne")
DECADES = 6
"""Scalars are drawn from 10**-DECADES to 10**DECADES, on both sides of zero."""
PER_DECADE = 5
CURVES = {
    "loss": "loss",
    "spread": "spread of projections (0 is collapse)",
    "probe": "probe on training cases, accuracy in %",
    "gradient": "norm of the gradient",
}
"""What is drawn of the metrics of a run, in this order."""


def _styled(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Has a figure drawn in the style of this file; says what is missing where matplotlib is."""

    @functools.wraps(draw)
    def styled(*args: Any, **options: Any) -> "Figure":
        with _style():
            return draw(*args, **options)

    return styled


@contextlib.contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise InputError("figures need matplotlib; pip install 'nutime_jax[report]'") from error
    with matplotlib.rc_context(STYLE):
        yield


@_styled
def draw_embedding(
    features: np.ndarray, labels: Sequence[str] | None, *, filled: np.ndarray | None = None, method: str = "pca", title: str = ""
) -> "Figure":
    """Features in two dimensions, a point a case, a colour a class.

    Args:
        features: (cases, features), of three cases or more.
        labels: one a case; None where there are none.
        filled: bool (cases,), whose marks are filled and not hollow; None fills all.
        method: "pca", a linear map of the standardised features, or "tsne", which shows neighbourhoods and no distances.

    Raises:
        InputError: too few cases, or an unknown method.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    points, names = _project(features, method)
    filled = np.ones(len(points), bool) if filled is None else filled
    texts = np.array([""] * len(points) if labels is None else [str(one) for one in labels])
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot(xlabel=names[0], ylabel=names[1])
    axes.set_title(_plain(title), loc="left")
    handles = []
    for place, label in enumerate(in_order(texts.tolist())):
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place // len(COLOURS) % len(MARKS)]
        for inside, face in ((True, colour), (False, "none")):
            chosen = (texts == label) & (filled == inside)
            axes.scatter(*points[chosen].T, s=26, marker=mark, facecolors=face, edgecolors=colour, linewidths=1, alpha=0.8)
        handles.append(Line2D([], [], color=colour, marker=mark, linestyle="", label=_plain(label)))
    if labels is not None:
        columns = 1 + (len(handles) - 1) // 14
        figure.legend(handles=handles, title="class", loc="outside right upper", ncols=columns, frameon=False, handletextpad=0.2)
    return figure


def check_method(method: str) -> None:
    """Raises InputError unless there is such a way to draw features in two dimensions."""
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}")


def _project(features: np.ndarray, method: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Two coordinates a case, and what they are called."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    check_method(method)
    if len(features) < 3:
        raise InputError(f"{len(features)} cases make no picture of features; give three or more")
    scaled = StandardScaler().fit_transform(np.asarray(features, np.float64))
    if method == "tsne":
        perplexity = min(30.0, (len(scaled) - 1) / 3)
        with threadpool_limits(1):  # threads sum in any order, and wait for each other
            return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(scaled), ("t-SNE 1", "t-SNE 2")
    pca = PCA(2, svd_solver="full")  # its signs are fixed by scikit-learn
    points = pca.fit_transform(scaled)
    first, second = (f"component {i} ({share:.0%} of the variance)" for i, share in enumerate(pca.explained_variance_ratio_, 1))
    return points, (first, second)


@_styled
def draw_nme(encoder: Encoder) -> "Figure":
    """What the trained NME makes of scalars over twelve decades and both signs.

    Above left, how much each scale takes part; below it, the embedding, a row a dimension; right, the cosine of the
    embeddings of any two scalars.

    Raises:
        InputError: the encoder embeds no scalars.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    network = encoder.network
    if network.statistics == "none":
        raise InputError(f"{encoder!r} embeds no mean and no std; there is no NME to draw")
    trained, scales = encoder.variables["params"]["embedding"]["nme"], jnp.asarray(network.scales, jnp.float32)
    sizes = 10.0 ** np.linspace(-DECADES, DECADES, 2 * DECADES * PER_DECADE + 1)
    scalars = jnp.asarray(np.concatenate([-sizes[::-1], sizes]), jnp.float32)
    weight, bias = (jnp.asarray(trained[name]) for name in ("weight", "bias"))
    embedded = np.asarray(embed_scalar(scalars, weight, bias, scales, weighted=network.weighted_scales))
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    weights = np.asarray(scale_weights(scalars, scales)) if network.weighted_scales else np.ones((len(scalars), len(scales)))

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    boxes = figure.add_gridspec(2, 2, width_ratios=(1.15, 1), height_ratios=(1, 1.5))
    above, below, right = figure.add_subplot(boxes[0, 0]), figure.add_subplot(boxes[1, 0]), figure.add_subplot(boxes[:, 1])
    limit = np.abs(embedded).max()
    diverging = matplotlib.colormaps["RdBu_r"].resampled(24)  # steps make a file a third as large
    panels = {
        above: (weights, {"cmap": "cividis", "vmin": 0}),
        below: (embedded, {"cmap": diverging, "vmin": -limit, "vmax": limit}),
        right: (unit @ unit.T, {"cmap": diverging, "vmin": -1, "vmax": 1}),
    }
    for axes, (values, colours) in panels.items():
        image = axes.imshow(values.T, origin="lower", aspect="auto", interpolation="none", **colours)
        bar = figure.colorbar(image, ax=axes, pad=0.01, ticks=MaxNLocator(4))
        bar.outline.set_visible(False)
        bar.solids.set_rasterized(True)
        axes.spines[:].set_visible(False)
        _mark_decades(axes.xaxis)
    kept = np.arange(0, len(scales), -(-len(scales) // 5))
    above.set_yticks(kept, [_power(scales[place]) for place in kept])
    above.set_xticklabels([])
    _mark_decades(right.yaxis)
    above.set(title="weight of each scale", ylabel="scale")
    below.set(title="embedding", xlabel="scalar", ylabel="dimension")
    right.set(title="cosine of the embeddings of two scalars", xlabel="scalar", ylabel="scalar")
    return figure


def _mark_decades(axis: Any) -> None:
    """Ticks of an axis whose places are negative scalars, the largest first, and then positive ones."""
    each = 2 * DECADES * PER_DECADE + 1
    wanted = [k for k in range(-DECADES + 1, DECADES + 1) if (DECADES - k) % 4 == 0]
    steps = [(k + DECADES) * PER_DECADE for k in wanted]
    places = [each - 1 - step for step in reversed(steps)] + [each - 0.5] + [each + step for step in steps]
    signs = [f"−{_power(10.0**k)}" for k in reversed(wanted)] + ["0"] + [_power(10.0**k) for k in wanted]
    axis.set_ticks(places, signs, fontsize=8)


def _power(value: float) -> str:
    exponent = np.log10(value)
    if abs(exponent - round(exponent)) > 1e-6:
        return f"{value:.2g}"
    return "10" + f"{exponent:.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@_styled
def draw_views(series: Sequence[np.ndarray], *, length: int, crop: tuple[float, float], seed: int = 0, title: str = "") -> "Figure":
    """Series beside the two views of each that a training step would make of them.

    Args:
        series: a row each, (time,).
        length: points of a view.
        crop: smallest and largest share of a series that a view keeps.
        seed: of the crops.

    Raises:
        InputError: there are no series.
    """
    from matplotlib.figure import Figure

    if not series:
        raise InputError("there is no series to draw; give one or more")
    values, offsets = zip(*(split_offset(one) for one in series), strict=True)
    padded, lengths = pad_series(list(values), max(map(len, values)))
    views, crops = _cut_views(jax.random.key(seed), jnp.asarray(padded), jnp.asarray(lengths), length=length, crop=crop)
    views = np.asarray(views.values)[:, :, 0]
    starts, sizes = np.asarray(crops.start), np.asarray(crops.size)

    figure = Figure(figsize=(9.2, 0.7 + 1.5 * len(series)), layout="constrained")
    figure.suptitle(_plain(title), fontsize=10, x=0.01, ha="left")
    boxes = figure.subplots(len(series), 2, squeeze=False, sharex="col", sharey="row")
    for row, (whole, cut) in enumerate(boxes):
        shift = np.float64(offsets[row])
        whole.plot(values[row] + shift, color=INK, linewidth=1.2)
        whole.set_ylabel("value")
        for view in range(2):
            start, colour = starts[row, view], COLOURS[view]
            stretch = {"xmin": start, "xmax": start + sizes[row, view] - 1, "ymin": 0.5 * (1 - view), "ymax": 1 - 0.5 * view}
            whole.axvspan(**stretch, color=colour, alpha=0.18, linewidth=0)
            if not row:
                whole.text(start, 0.97 - 0.5 * view, f" view {view + 1}", color=colour, va="top", transform=whole.get_xaxis_transform())
            cut.plot(views[row, view] + shift, color=colour, linestyle=LINES[view], linewidth=1.4, label=f"view {view + 1}")
    boxes[0, 0].set_title("series, and the stretches that are kept", loc="left")
    boxes[0, 1].set_title(f"two views of it, resized to {length} points", loc="left")
    boxes[-1, 0].set_xlabel("time, in steps of the series")
    boxes[-1, 1].set_xlabel("point of the view")
    boxes[0, 1].legend(frameon=False, loc="best")
    return figure


@functools.partial(jax.jit, static_argnames=("length", "crop"))
def _cut_views(key: jax.Array, padded: jax.Array, lengths: jax.Array, *, length: int, crop: tuple[float, float]) -> tuple[Views, Crop]:
    """The views of series, and the stretches (series, views) that they are: those of the same keys."""
    views = two_views(key, padded, lengths, size=length, ratio=crop)
    draw = jax.vmap(jax.vmap(functools.partial(random_crop, ratio=crop), (0, None)))
    return views, draw(jax.random.split(key, (len(lengths), 2)), lengths)


def spread_over_classes(cases: Cases, count: int) -> list[int]:
    """Places of `count` cases: the first of every class, then the second, and so on."""
    labels = [""] * len(cases.series) if cases.labels is None else cases.labels.tolist()
    seen: Counter[str] = Counter()
    ranks = []
    for label in labels:
        ranks.append((seen[label], in_order(labels).index(label)))
        seen[label] += 1
    return sorted(range(len(labels)), key=ranks.__getitem__)[:count]


@_styled
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
                axes.plot(steps, values * (100 if name == "probe" else 1), color=colour, linestyle=line, marker=mark, label=_plain(label))
        _fit_axis(axes, name)
    if len(runs) > 1:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=min(4, len(runs)), frameon=False)
    return figure


def _fit_axis(axes: "Axes", name: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    if name in ("loss", "gradient") and all((line.get_ydata() > 0).all() for line in axes.lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    if name == "spread":
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


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def check_figure_path(path: Path) -> None:
    """Refuses what `save_figure` could not write, before anything is computed.

    Raises:
        InputError: another suffix than .png or .svg, or no such folder.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{path} is no name of a figure; end it in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.parent}; make it, or choose another")


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure as .png or .svg, byte for byte the same for the same figure; the file is at its place only when it is whole.

    Raises:
        InputError: it cannot be written there.
    """
    check_figure_path(path)
    kind = path.suffix.lower()[1:]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _style(), temporary.open("wb") as file:
            figure.savefig(file, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None})
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
