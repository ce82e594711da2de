"""The one rule for missing values and lengths, shared by corpora, training and embedding."""

import math

import numpy as np
from jaxtyping import Float, Float32, Int32, Shaped

from nutime_jax.errors import InputError

SHAPE_BITS = 20
"""A series is narrowed to float32 where rounding moves no value by more than 2**-SHAPE_BITS of the series' range."""


def clean_series(x: Shaped[np.ndarray, "..."], *, name: str = "the series") -> Float[np.ndarray, "channels time"]:
    """Turns one series into finite numbers, shape (channels, time); the input is not touched.

    The result is float32 where float32 keeps the shape of every channel; a small signal on a large offset (a pressure of
    101,325 Pa that varies by 0.01) comes back as float64, for `split_offset` to take apart.

    Time steps at either end that are missing (NaN) in every channel are padding, and are cut. Missing values inside are
    interpolated linearly within their channel, the first and last known values held towards the ends; a channel with no
    value at all becomes zero. The release cuts out every step that is missing in all channels and writes 0 elsewhere:
    that distorts time, and 0 is an outlier in a series at level 1e6.

    Args:
        x: shape (time,) or (channels, time), any real dtype.
        name: what an error calls it.

    Raises:
        InputError: not numbers, not of one or two axes, no known value, infinite, or beyond float32.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {x.dtype} values; convert it to real numbers")
    if x.ndim not in (1, 2):
        raise InputError(f"{name} has shape {x.shape}; give it as (time,) or (channels, time)")
    x = np.atleast_2d(x)
    if x.dtype == np.float32 and x.size and np.isfinite(x).all():
        return x.copy()
    with np.errstate(over="ignore"):  # of longer floats; what is infinite is refused
        x = x.astype(np.float64)
    known = ~np.isnan(x)
    if not known.any():
        raise InputError(f"{name} has no value that is not missing; remove it")
    if np.abs(x[known]).max() > np.finfo(np.float32).max:
        raise InputError(f"{name} holds infinite values or values beyond 3.4e38; mark them as missing (NaN) or rescale")
    steps = np.flatnonzero(known.any(0))
    span = slice(steps[0], steps[-1] + 1)
    x, known = x[:, span], known[:, span]
    for channel, valid in zip(x, known, strict=True):
        if valid.all():
            continue
        places = np.flatnonzero(valid)
        channel[~valid] = np.interp(np.flatnonzero(~valid), places, channel[places]) if len(places) else 0
    narrow = x.astype(np.float32)
    lost = np.abs(x - narrow).max(-1) > np.ldexp(x.max(-1) - x.min(-1), -SHAPE_BITS)
    constant = x.max(-1) == x.min(-1)
    return x if np.any(lost & ~constant) else narrow


def clean_block(x: Shaped[np.ndarray, "cases channels time"], *, first: int = 0) -> list[Float[np.ndarray, "channels _"]]:
    """`clean_series` of many cases at once; most need no more than a look at them.

    Args:
        x: any real dtype.
        first: the number of the first case, for errors.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = x.astype(np.float32)
        plain = np.isfinite(narrow).all((1, 2))
        if x.size and not np.can_cast(x.dtype, np.float32):
            x64 = x.astype(np.float64)
            spans = x64.max(-1) - x64.min(-1)
            lost = np.abs(x64 - narrow).max(-1) > np.ldexp(spans, -SHAPE_BITS)
            plain &= ~(lost & (spans != 0)).any(-1)
    plain &= x[0].size > 0
    return [narrow[i] if plain[i] else clean_series(x[i], name=f"case {first + i}") for i in range(len(x))]


def split_offset(x: Float[np.ndarray, " time"]) -> tuple[Float32[np.ndarray, " time"], np.float32]:
    """Takes a series apart into float32 values and the constant to be added to them: 0 if it is float32 already.

    Shapes and standard deviations of windows do not depend on the constant; their means get it back in
    `windows.normalise_windows`.
    """
    if x.dtype == np.float32:
        return x, np.float32(0)
    offset = np.float32(x.max() / 2 + x.min() / 2)
    return (x - np.float64(offset)).astype(np.float32), offset


def difference(x: Float32[np.ndarray, " time"]) -> Float32[np.ndarray, "_"]:
    """Differences of neighbouring points, one fewer; a zero of a single point. What float32 has no number for is its largest."""
    if len(x) == 1:
        return np.zeros_like(x)
    largest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        return np.clip(np.diff(x), -largest, largest)


def cut_series(x: Float[np.ndarray, " time"], max_length: int) -> list[Float[np.ndarray, "_"]]:
    """Cuts a series into the fewest pieces of (nearly) equal length that have at most `max_length` points.

    The rule of corpora and of embedding alike (where the features of a series are the mean over its pieces). The
    release means to cut at 2048 points, but its limit has no effect.
    """
    return [x] if len(x) <= max_length else np.array_split(x, math.ceil(len(x) / max_length))


def pad_series(
    series: list[Float32[np.ndarray, "_"]], length: int
) -> tuple[Float32[np.ndarray, "batch {length}"], Int32[np.ndarray, " batch"]]:
    """Stacks series of any length up to `length`, zeros after each; returns them with their own lengths."""
    padded = np.zeros((len(series), length), np.float32)
    for row, one in zip(padded, series, strict=True):
        row[: len(one)] = one
    return padded, np.array([len(one) for one in series], np.int32)
