"""Features of cases in two dimensions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nutime_jax.data.inspection import in_order
from nutime_jax.errors import InputError
from nutime_jax.report.figures import COLOURS, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = ("o", "^", "s", "D", "v", "P", "X")
METHODS = ("pca", "tsne")


@styled
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
    axes.set_title(plain(title), loc="left")
    handles = []
    for place, label in enumerate(in_order(texts.tolist())):
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place // len(COLOURS) % len(MARKS)]
        for inside, face in ((True, colour), (False, "none")):
            chosen = (texts == label) & (filled == inside)
            axes.scatter(*points[chosen].T, s=26, marker=mark, facecolors=face, edgecolors=colour, linewidths=1, alpha=0.8)
        handles.append(Line2D([], [], color=colour, marker=mark, linestyle="", label=plain(label)))
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
