"""Random views of a series, keyed and pure; they run on the device, inside the training step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from nutime_jax.resample import resize


class Crop(NamedTuple):
    """A stretch of a series, in points."""

    start: Int[Array, ""]
    size: Int[Array, ""]


def random_crop(key: Key[Array, ""], length: Int[Array, ""], *, ratio: tuple[float, float]) -> Crop:
    """Draws a stretch of round(u * length) points, u uniform in `ratio`, at a uniform place inside the series.

    At least one point is kept (a series of one point is its only crop). Source: the release's TSRandomResizedCrop.

    Args:
        key: one key.
        length: valid points of the series, at least 1.
        ratio: smallest and largest share of the series to keep, 0 <= low <= high <= 1.
    """
    size_key, start_key = jax.random.split(key)
    share = jax.random.uniform(size_key, minval=ratio[0], maxval=ratio[1])
    size = jnp.clip(jnp.round(share * length).astype(jnp.int32), 1, length)
    return Crop(jax.random.randint(start_key, (), 0, length - size + 1), size)


def random_crop_resize(
    key: Key[Array, ""], series: Float[Array, " time"], length: Int[Array, ""], *, size: int, ratio: tuple[float, float]
) -> Float[Array, " {size}"]:
    """Crops at random within the first `length` points of a padded series and resizes the crop to `size` points."""
    crop = random_crop(key, length, ratio=ratio)
    return resize(series, size, start=crop.start, length=crop.size)


def two_views(
    key: Key[Array, ""],
    series: Float[Array, "batch time"],
    lengths: Int[Array, " batch"],
    *,
    size: int,
    ratio: tuple[float, float],
) -> Float[Array, "batch 2 1 {size}"]:
    """Two independent crops of every series, shape (batch, views, channels, size).

    One key a series and view, derived from its place in the global batch: views do not depend on the device count. The
    view axis follows the batch axis, so that merging the two never moves data between devices.

    Args:
        key: one key for the whole batch.
        series: padded series, shape (batch, time).
        lengths: valid points of each.
        size: points of a view.
        ratio: see `random_crop`.
    """
    keys = jax.random.split(key, (series.shape[0], 2))

    def view(key, one, length):
        return random_crop_resize(key, one, length, size=size, ratio=ratio)[None]

    return jax.vmap(jax.vmap(view, in_axes=(0, None, None)))(keys, series, lengths)
