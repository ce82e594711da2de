"""Linear resampling of a segment of a series to a fixed number of points; augmentation, features and export share it.

`resize` runs compiled, `resize_on_host` in NumPy, by the same operations in the same order. Compiled, XLA may fuse a multiply
with the add that follows it; the fused result is rounded once and can differ in the last bit, which shows in
windows whose std is next to a scale of the NME. An exported program must
agree with the host, so it passes a `fusion_barrier`: a function that returns its argument and that XLA does not fuse across.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from types import ModuleType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from nutime_jax.errors import InputError

MAX_LENGTH = 2**24 - 1
"""Points of the longest series: positions are float32."""


def resize(
    x: Float[Array, "*batch time"],
    size: int,
    *,
    start: int | Int[Array, ""] = 0,
    length: int | Int[Array, ""] | None = None,
    fusion_barrier: Callable[[Array], Array] = lambda product: product,
) -> Float[Array, "*batch {size}"]:
    """Resizes x[..., start:start + length] to `size` points by linear interpolation.

    Half-pixel centres, no antialiasing, edges clamped: PyTorch's `interpolate(mode="linear", align_corners=False)`, as
    the release uses it, positions rounded as PyTorch rounds them (in the precision of x). The interpolation itself is
    a + f * (b - a), so that a constant stretch stays constant to the bit; PyTorch's form does not. Start and length may
    be traced, the shapes are static.

    Args:
        x: series, finite, shape (..., time); what lies outside the stretch is never read.
        size: points of the result.
        start: first point of the stretch.
        length: points of the stretch, at least 1 and at most MAX_LENGTH; None takes all that follows `start`.
        fusion_barrier: identity function that keeps XLA from fusing a multiply with the next add; see the module docstring.

    Raises:
        InputError: the stretch has more than MAX_LENGTH points (told only where its length is no traced value).
    """
    length = x.shape[-1] - start if length is None else length
    if isinstance(length, int):
        _check_length(length)
    return _interpolate(jnp, x, size, start, jnp.asarray(length, jnp.int32), fusion_barrier)


def resize_on_host(x: Float32[np.ndarray, "*batch time"], size: int) -> Float32[np.ndarray, "*batch {size}"]:
    """`resize` of whole series in NumPy, by the same operations in the same order.

    What is embedded is resized here: one compiled program then serves series of every length, in the order they come in.
    Compiled, `resize` may differ in the last bit, where a product and a sum are fused.

    Raises:
        InputError: the series have more than MAX_LENGTH points.
    """
    length = x.shape[-1]
    _check_length(length)
    return x.copy() if length == size else _interpolate(np, x, size, 0, np.int32(length), lambda product: product)


def resize_batch(series: Sequence[Float32[np.ndarray, "_"]], size: int, *, rows: int) -> Float32[np.ndarray, "{rows} {size}"]:
    """`resize_on_host` of series of any lengths, those of one length at once; rows without a series are 0."""
    places = defaultdict(list)
    for place, one in enumerate(series):
        places[len(one)].append(place)
    views = np.zeros((rows, size), np.float32)
    for alike in places.values():
        views[alike] = resize_on_host(np.stack([series[place] for place in alike]), size)
    return views


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise InputError(f"a series of {length} points is too long to be resized; cut it into pieces of at most {MAX_LENGTH}")


def _interpolate(xp: ModuleType, x, size: int, start, length, fusion_barrier):
    """What `resize` says, by the functions of jax.numpy or NumPy."""
    centres = fusion_barrier((length.astype(x.dtype) / size) * (xp.arange(size, dtype=x.dtype) + 0.5)) - 0.5
    position = xp.maximum(centres, 0)
    left = xp.minimum(position.astype(xp.int32), length - 1)
    right = xp.minimum(left + 1, length - 1)
    fraction = position - left.astype(x.dtype)

    # Halved, which is exact down to 2.4e-38, the difference of two finite values cannot overflow.
    a = xp.take(x, start + left, axis=-1, mode="clip") / 2
    b = xp.take(x, start + right, axis=-1, mode="clip") / 2
    return 2 * (a + fusion_barrier(fraction.reshape((1,) * (x.ndim - 1) + (size,)) * (b - a)))
