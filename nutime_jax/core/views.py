"""Random views of a series, keyed and pure; they run on the device, inside the training step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from nutime_jax.core.augmentations import Augmentation
from nutime_jax.core.resample import resize


class Views(NamedTuple):
    """Two views of every series.

    values: (batch, views, channels, points).
    offset: what is to be added to the values of either view, (batch, channels); see `windows.normalise_windows`.
    """

    values: Float[Array, "batch 2 channels points"]
    offset: Float[Array, "batch channels"]


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
    key: Key[Array, ""],
    series: Float[Array, " time"],
    length: Int[Array, ""],
    *,
    start: int | Int[Array, ""] = 0,
    size: int,
    ratio: tuple[float, float],
) -> Float[Array, " {size}"]:
    """Crops at random within the `length` points from `start` on and resizes the crop to `size` points."""
    crop = random_crop(key, length, ratio=ratio)
    return resize(series, size, start=start + crop.start, length=crop.size)


def two_views(
    key: Key[Array, ""],
    series: Float[Array, "*batch time"],
    lengths: Int[Array, " batch"],
    *,
    starts: Int[Array, " batch"] | None = None,
    offsets: Float[Array, " batch"] | None = None,
    size: int,
    ratio: tuple[float, float],
    augment: Augmentation | None = None,
) -> Views:
    """Two independent crops of every series, augmented if so asked.

    One key a series and view, derived from its place in the global batch: views do not depend on the device count. The
    view axis follows the batch axis, so that merging the two never moves data between devices.

    Args:
        key: one key for the whole batch.
        series: padded series, shape (batch, time), or all points of many series, shape (time,).
        lengths: valid points of each, shape (batch,).
        starts: where each begins; None is 0.
        offsets: what is to be added to each; None is 0.
        size: points of a view.
        ratio: see `random_crop`.
        augment: augmentation of each crop (see `augmentations.make_augmentation`); the offset has no part in it. None is nothing.
    """
    keys = jax.random.split(key, (len(lengths), 2))
    starts = jnp.zeros_like(lengths) if starts is None else starts
    offsets = jnp.zeros(len(lengths), series.dtype) if offsets is None else offsets

    def view(key, one, length, start):
        if augment is None:
            return random_crop_resize(key, one, length, start=start, size=size, ratio=ratio)[None]
        crop_key, augment_key = jax.random.split(key)
        return augment(augment_key, random_crop_resize(crop_key, one, length, start=start, size=size, ratio=ratio))[None]

    two = jax.vmap(view, in_axes=(0, None, None, None))
    values = jax.vmap(two, in_axes=(0, 0 if series.ndim == 2 else None, 0, 0))(keys, series, lengths, starts)
    return Views(values, offsets[:, None])
