"""Linear resampling of a segment of a series to a fixed number of time points, for augmentation, features and export.

`resize` is compiled, `resize_on_host` uses NumPy with the same operations in the same order. XLA may fuse a multiply with
the following add; the fused result is rounded once and may differ in the last bit. This is visible in windows whose std is
near a scale of the NME. An exported program must agree with the host, so it passes a `fusion_barrier`: an identity function
across which XLA does not fuse.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from types import ModuleType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from nutime_jax.errors import InputError

MAX_LENGTH = 2**24 - 1
"""Maximum length of a series in time points; float32 represents no larger index exactly."""


def resize(
    x: Float[Array, "*batch time"],
    size: int,
    *,
    start: int | Int[Array, ""] = 0,
    length: int | Int[Array, ""] | None = None,
    fusion_barrier: Callable[[Array], Array] = lambda product: product,
) -> Float[Array, "*batch {size}"]:
    """Resize x[..., start:start + length] to `size` time points by linear interpolation.

    Half-pixel centres, no antialiasing, clamped edges: PyTorch's `interpolate(mode="linear", align_corners=False)`, as in the
    official implementation. Positions are exact; PyTorch rounds them to the precision of x, which tilts windows of short
    series. The interpolation is a + f * (b - a), which keeps constant segments constant, bit for bit; PyTorch's form does
    not. Start and length may be traced; shapes are static.

    Args:
        x: series, finite, (…, time); values outside the segment are not used.
        size: time points of the result.
        start: first time point of the segment.
        length: length of the segment, 1 to MAX_LENGTH; None is all time points after `start`.
        fusion_barrier: identity function that keeps XLA from fusing a multiply with the next add; see the module docstring.

    Returns:
        (…, size).

    Raises:
        InputError: the segment has more than MAX_LENGTH time points (not checked for a traced length).
    """
    length = x.shape[-1] - start if length is None else length
    if isinstance(length, int):
        _check_length(length)
    return _interpolate(jnp, x, size, start, jnp.asarray(length, jnp.int32), fusion_barrier)


def resize_on_host(x: Float32[np.ndarray, "*batch time"], size: int) -> Float32[np.ndarray, "*batch {size}"]:
    """Resize entire series in NumPy, with the operations of `resize` in the same order.

    Embedding resizes on the host, so that one compiled function serves series of all lengths in input order.

    Raises:
        InputError: the series have more than MAX_LENGTH time points.
    """
    length = x.shape[-1]
    _check_length(length)
    return x.copy() if length == size else _interpolate(np, x, size, 0, np.int32(length), lambda product: product)


def resize_batch(series: Sequence[Float32[np.ndarray, "_"]], size: int, *, rows: int) -> Float32[np.ndarray, "{rows} {size}"]:
    """Resize series of any lengths on the host, grouped by length; rows without a series are 0."""
    indices = defaultdict(list)
    for i, values in enumerate(series):
        indices[len(values)].append(i)
    views = np.zeros((rows, size), np.float32)
    for group in indices.values():
        views[group] = resize_on_host(np.stack([series[i] for i in group]), size)
    return views


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise InputError(f"a series of {length} time points is too long to be resized; split it into segments of at most {MAX_LENGTH}")


def _interpolate(xp: ModuleType, x, size: int, start, length, fusion_barrier):
    """Compute `resize` with jax.numpy or NumPy."""
    left, numerator = _positions(xp, size, length)
    right = xp.minimum(left + 1, length - 1)
    fraction = numerator.astype(x.dtype) / (2 * size)

    # Values are halved (exact down to 2.4e-38), so that the difference of two finite values cannot overflow.
    a = xp.take(x, start + left, axis=-1, mode="clip") / 2
    b = xp.take(x, start + right, axis=-1, mode="clip") / 2
    return 2 * (a + fusion_barrier(fraction.reshape((1,) * (x.ndim - 1) + (size,)) * (b - a)))


def _positions(xp: ModuleType, size: int, length):
    """Return the left neighbours of all positions, (length (2 i + 1) - size) / (2 size), and the remainders.

    The division of the length by the size comes first: their product may exceed 32 bits.
    """
    odd = 2 * xp.arange(size, dtype=xp.int32) + 1
    halves = length // size * odd - 1
    rest = halves % 2 * size + length % size * odd
    left, numerator = halves // 2 + rest // (2 * size), rest % (2 * size)
    return xp.clip(left, 0, length - 1), xp.where(left < 0, 0, numerator)
