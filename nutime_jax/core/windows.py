"""Windows of a series: normalised shape, mean and standard deviation (paper section 3.2); window offsets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nutime_jax.errors import InputError


class Windows(NamedTuple):
    """Windows of a series.

    normalised: shape of each window, (value - mean) / std, (…, windows, window).
    mean, std: statistics of each window in the units of the series, (…, windows); std is unbiased (ddof 1).
    """

    normalised: Float[Array, "*batch windows window"]
    mean: Float[Array, "*batch windows"]
    std: Float[Array, "*batch windows"]


def normalise_windows(
    x: Float[Array, "*batch time"], *, window: int, stride: int = 0, offset: Float[Array, "*batch"] | None = None, eps: float = 1e-8
) -> Windows:
    """Split the last axis into windows and normalise each: (x - mean) / (std + eps).

    Mean and std are constants for the gradient, as in the official implementation. The arithmetic differs: each window is
    first shifted by its first value and divided by its largest magnitude. A constant window then normalises to exact
    zeros, and every finite input gives finite values and gradients. A std above the largest float is clipped to it.
    Subnormal numbers may count as zero, as on accelerators.

    Args:
        x: series, finite, (…, time).
        window, stride: see `count_windows`.
        offset: constant that was subtracted from a series (`data.series.centre_to_float32`), (…); it is added to the
            means. None is 0.
        eps: added to the std, in units of the series. Windows with a std near or below 1e-8 normalise towards zero; only
            there, the result depends on the scale of the series.

    Raises:
        InputError: windows do not tile the length exactly.
    """
    x = cut_windows(x, window=window, stride=stride)
    largest = jnp.finfo(x.dtype).max
    constant = jax.lax.stop_gradient

    # Differences, sums and reciprocals of huge values overflow: scale such windows down by a power of two.
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

    # Exact, since the magnitude of the mean is embedded: near zero, a rounded mean has few correct digits.
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
    normalised = normalise_windows(shifted, window=window, stride=stride).normalised
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
    """Return the windows of a series without normalisation, see `count_windows`."""
    count = count_windows(x.shape[-1], window=window, stride=stride)
    if stride in (0, window):
        return x.reshape(*x.shape[:-1], count, window)
    return x[..., stride * np.arange(count)[:, None] + np.arange(window)]


def count_windows(length: int, *, window: int, stride: int = 0) -> int:
    """Return the number of windows that tile a series exactly: the last one ends with the series, without padding.

    Args:
        length: length of the series, in time points.
        window: window size, in time points.
        stride: time points from the start of a window to the next; 0 is `window` (no overlap).

    Raises:
        InputError: windows do not tile the length exactly, or leave gaps.
    """
    if not 0 <= stride <= window:
        raise InputError(f"windows of {window} time points every {stride} leave gaps; choose a stride of 1 to {window}, or 0 for {window}")
    if stride in (0, window):
        if window < 1 or length % window:
            raise InputError(f"length {length} is not divisible by window {window}; choose a multiple of {window}")
        return length // window
    if length < window or (length - window) % stride:
        raise InputError(
            f"length {length} is not tiled by windows of {window} time points every {stride}; choose {window} plus a multiple of {stride}"
        )
    return (length - window) // stride + 1


def _sum_exactly(x: Float[Array, "*batch time"]) -> Float[Array, "*batch 1"]:
    """Return the sum over the last axis with about one rounding: pairwise, with compensation of each addition.

    The result of a plain sum depends on the order of additions, which the compiler changes with the batch shape.
    """
    lost = jnp.zeros_like(x)
    while x.shape[-1] > 1:
        x, lost = (jnp.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, part.shape[-1] % 2)]) for part in (x, lost))
        a, b = x[..., ::2], x[..., 1::2]
        x = a + b
        part = x - a
        lost = lost[..., ::2] + lost[..., 1::2] + ((a - (x - part)) + (b - part))
    return x + lost


def window_offset_starts(num_window_offsets: int, stride: int) -> list[int]:
    """Return the window offsets in time points: evenly spaced within one stride, starting at 0."""
    return [stride * i // num_window_offsets for i in range(num_window_offsets)]


def make_offset_views(views: Float[Array, "batch time"], num_window_offsets: int, stride: int) -> Float[Array, "rows length"]:
    """Return the segments of each view that start at each window offset, as adjacent rows of equal length.

    Args:
        views: (batch, time); time is the length of a segment plus the largest offset.
        num_window_offsets: number of window offsets.
        stride: window stride, in time points.
    """
    starts = window_offset_starts(num_window_offsets, stride)
    length = views.shape[1] - starts[-1]
    segments = jnp.stack([views[:, start : start + length] for start in starts], axis=1)
    return segments.reshape(views.shape[0] * num_window_offsets, length)


def average_over_offsets(outputs: Float[Array, "rows *rest"], num_window_offsets: int) -> Float[Array, "batch *rest"]:
    """Return the mean over window offsets of the rows that `make_offset_views` made."""
    if num_window_offsets == 1:
        return outputs
    return outputs.reshape(outputs.shape[0] // num_window_offsets, num_window_offsets, *outputs.shape[1:]).mean(1)
