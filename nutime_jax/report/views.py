"""Series beside the views that training makes of them."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from nutime_jax.core.views import Crop, Views, random_crop, two_views
from nutime_jax.data.datasets import Cases
from nutime_jax.data.inspection import in_order
from nutime_jax.data.series import pad_series, split_offset
from nutime_jax.errors import InputError
from nutime_jax.report.figures import COLOURS, INK, LINES, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
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
    figure.suptitle(plain(title), fontsize=10, x=0.01, ha="left")
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
