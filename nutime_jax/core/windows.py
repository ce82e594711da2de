"""Windowed normalisation: a series becomes windows of shape, mean and standard deviation (paper section 3.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nutime_jax.errors import InputError


class Windows(NamedTuple):
    """Windows of a series, taken apart.

    shape: normalised values, (..., windows, window).
    mean, std: statistics of each window in the units of the series, (..., windows); std has ddof 1.
    """

    shape: Float[Array, "*batch windows window"]
    mean: Float[Array, "*batch windows"]
    std: Float[Array, "*batch windows"]


def normalise_windows(
    x: Float[Array, "*batch time"], *, window: int, stride: int = 0, offset: Float[Array, "*batch"] | None = None, eps: float = 1e-8
) -> Windows:
    """Cuts the last axis into windows and normalises each: shape = (x - mean) / (std + eps).

    Mean and std are constants to the gradient, as in the release. The arithmetic is not the release's: every window is
    first shifted by its first value and scaled by its largest magnitude, so that a constant window has a shape of
    exactly zero and any finite input, up to the largest float, gives finite values and gradients. A std that exceeds the
    largest float is returned as that float. Subnormal numbers may count as zero, as they do on accelerators.

    Args:
        x: series, finite, shape (..., time).
        window, stride: see `count_windows`.
        offset: what was taken from a series so that its shape fits float32 (`data.series.centre_to_float32`), shape (...);
            it is added back to the means. None is zero.
        eps: added to the std, in the units of the series. It makes the shape of windows with a std near or below 1e-8
            fade to zero: there, and only there, the shape depends on the scale of the series.

    Raises:
        InputError: the windows do not end where the series ends.
    """
    x = cut_windows(x, window=window, stride=stride)
    largest = jnp.finfo(x.dtype).max
    constant = jax.lax.stop_gradient

    # Differences and sums of huge values overflow, and so do reciprocals: make those windows smaller, by a power of two.
    margin = 256 << (window - 1).bit_length()
    huge = jnp.abs(constant(x)).max(-1, keepdims=True) > largest / margin
    power = jnp.where(huge, 1 / margin, 1.0).astype(x.dtype)
    scaled = x * power
    first = constant(scaled[..., :1])
    shifted = scaled - first
    magnitude = jnp.abs(constant(shifted)).max(-1, keepdims=True)
    varies = magnitude > 0
    magnitude = jnp.where(varies, magnitude, 1)
    unit = shifted / magnitude

    centred = unit - constant(unit).mean(-1, keepdims=True)
    unit_std = jnp.sqrt(jnp.square(constant(centred)).sum(-1, keepdims=True) / max(window - 1, 1))
    shape = centred / (unit_std + eps / (magnitude / power))

    # To the last bit: what is embedded is the magnitude of the mean, and noise about zero has one of few true digits.
    mean = jnp.where(varies, _sum_exactly(constant(scaled)) / window, first)
    mean = jnp.clip(mean / power, -largest, largest)
    if offset is not None:
        mean = jnp.clip(mean + offset[..., None, None], -largest, largest)
    std = jnp.minimum(magnitude * unit_std / power, largest)
    return Windows(shape, mean[..., 0], std[..., 0])


class DenseWindows(NamedTuple):
    """Normalised windows at a small stride, grouped by the token in which they begin.

    normalised: (..., tokens, phases, window); phase p of token k begins at time point k * stride + p * dense_stride.
    valid: (tokens, phases); False where a window would end after the series. The first phase is always valid.
    """

    normalised: Float[Array, "*batch tokens phases window"]
    valid: Bool[np.ndarray, "tokens phases"]


def dense_windows(x: Float[Array, "*batch time"], *, window: int, stride: int, dense_stride: int) -> DenseWindows:
    """Normalise a window at every `dense_stride`-th time point; see `normalise_windows`.

    Args:
        x: series, finite, shape (..., time).
        window: time points per window.
        stride: time points from token to token, see `count_windows`.
        dense_stride: time points from window to window, a divisor of `stride`.

    Raises:
        InputError: the windows of the tokens do not end where the series ends.
    """
    tokens, phases = count_windows(x.shape[-1], window=window, stride=stride), stride // dense_stride
    starts = stride * np.arange(tokens)[:, None] + dense_stride * np.arange(phases)
    # The windows of phase p are those of the series without its first p * dense_stride time points.
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, stride - dense_stride)], mode="edge")
    shifted = jnp.stack([padded[..., start : start + x.shape[-1]] for start in starts[0]], axis=-2)
    normalised = normalise_windows(shifted, window=window, stride=stride).shape
    return DenseWindows(jnp.moveaxis(normalised, -3, -2), starts + window <= x.shape[-1])


def first_difference(x: Float[Array, "*batch time"]) -> Float[Array, "*batch time"]:
    """Return half the difference of each time point and the one before; the first value stands twice, so that the length stays.

    Halves of two finite values have a finite difference. Normalised windows do not depend on the factor.
    """
    if x.shape[-1] == 1:
        return jnp.zeros_like(x)
    half_steps = x[..., 1:] / 2 - x[..., :-1] / 2
    return jnp.concatenate([half_steps[..., :1], half_steps], axis=-1)


def cut_windows(x: Float[Array, "*batch time"], *, window: int, stride: int = 0) -> Float[Array, "*batch windows window"]:
    """The windows of a series, as they are; see `count_windows`."""
    count = count_windows(x.shape[-1], window=window, stride=stride)
    if stride in (0, window):
        return x.reshape(*x.shape[:-1], count, window)
    return x[..., stride * np.arange(count)[:, None] + np.arange(window)]


def count_windows(length: int, *, window: int, stride: int = 0) -> int:
    """How many windows a series has.

    Args:
        window: points a window.
        stride: points from the start of a window to that of the next; 0 is window, side by side. The last window ends where
            the series ends: nothing is padded, and nothing left out.

    Raises:
        InputError: the windows do not end where the series ends, or leave gaps.
    """
    if not 0 <= stride <= window:
        raise InputError(
            f"windows of {window} points every {stride} points leave gaps; choose a stride of 1 to {window}, or 0 for {window}"
        )
    if stride in (0, window):
        if window < 1 or length % window:
            raise InputError(f"length {length} is not divisible by window {window}; choose a length that is a multiple of it")
        return length // window
    if length < window or (length - window) % stride:
        raise InputError(
            f"length {length} does not end with a window of {window} points every {stride}; choose {window} and a multiple of {stride} more"
        )
    return (length - window) // stride + 1


def _sum_exactly(x: Float[Array, "*batch time"]) -> Float[Array, "*batch 1"]:
    """The sum over the last axis, about as if it were rounded once: pairwise, with what every addition loses kept apart.

    A plain sum depends on the order of additions, which is the compiler's choice and changes with the shape of a batch.
    """
    lost = jnp.zeros_like(x)
    while x.shape[-1] > 1:
        x, lost = (jnp.pad(one, [(0, 0)] * (one.ndim - 1) + [(0, one.shape[-1] % 2)]) for one in (x, lost))
        a, b = x[..., ::2], x[..., 1::2]
        x = a + b
        part = x - a
        lost = lost[..., ::2] + lost[..., 1::2] + ((a - (x - part)) + (b - part))
    return x + lost
