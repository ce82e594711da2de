"""Random views of a series: pure functions of a key, computed on the device inside the training step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from nutime_jax.core.augmentations import Augmentation
from nutime_jax.core.resample import resize


class Views(NamedTuple):
    """Two views of each series.

    values: (batch, views, channels, time).
    offset: constant to add to the values of both views, (batch, channels); see `windows.normalise_windows`.
    """

    values: Float[Array, "batch 2 channels time"]
    offset: Float[Array, "batch channels"]


class Crop(NamedTuple):
    """Segment of a series, in time points."""

    start: Int[Array, ""]
    size: Int[Array, ""]


def random_crop(key: Key[Array, ""], length: Int[Array, ""], *, ratio: tuple[float, float]) -> Crop:
    """Sample a segment of round(u * length) time points, u uniform in `ratio`, at a uniform start; at least one time point.

    Source: TSRandomResizedCrop of the official implementation.

    Args:
        key: one key.
        length: length of the series, at least 1 time point.
        ratio: minimum and maximum crop ratio, 0 <= low <= high <= 1.
    """
    size_key, start_key = jax.random.split(key)
    fraction = jax.random.uniform(size_key, minval=ratio[0], maxval=ratio[1])
    size = jnp.clip(jnp.round(fraction * length).astype(jnp.int32), 1, length)
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
    """Crop at random within the `length` time points after `start`, and resize the crop to `size` time points."""
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
    """Return two independent crops of each series, with optional augmentation.

    Each series and view has its own key, derived from its index in the global batch, so views do not depend on the number
    of devices. The view axis follows the batch axis, so merging the two moves no data between devices.

    Args:
        key: one key for the batch.
        series: padded series (batch, time), or concatenated series (time,).
        lengths: length of each series in time points, (batch,).
        starts: start of each series, (batch,); None is 0.
        offsets: constant to add to each series, (batch,); None is 0.
        size: time points of a view.
        ratio: see `random_crop`.
        augment: augmentation of each crop, see `augmentations.make_augmentation`; it ignores the offset. None is none.
    """
    keys = jax.random.split(key, (len(lengths), 2))
    starts = jnp.zeros_like(lengths) if starts is None else starts
    offsets = jnp.zeros(len(lengths), series.dtype) if offsets is None else offsets

    def view(key, values, length, start):
        if augment is None:
            return random_crop_resize(key, values, length, start=start, size=size, ratio=ratio)[None]
        crop_key, augment_key = jax.random.split(key)
        return augment(augment_key, random_crop_resize(crop_key, values, length, start=start, size=size, ratio=ratio))[None]

    two = jax.vmap(view, in_axes=(0, None, None, None))
    values = jax.vmap(two, in_axes=(0, 0 if series.ndim == 2 else None, 0, 0))(keys, series, lengths, starts)
    return Views(values, offsets[:, None])
