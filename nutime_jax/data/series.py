"""Cases, and the rule for missing values and lengths that corpora, training and embedding share."""

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, Shaped

from nutime_jax.errors import InputError, InputTypeError, first_line

EXCEL_ERRORS = ("#n/a", "#nv", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!")
MISSING = ("", "na", "n/a", "nan", "-nan", "null", "none", "<na>", "?", "-", "#na", "#n/a n/a", "1.#qnan", "-1.#ind", *EXCEL_ERRORS)
"""Texts of a cell without a value, in any case of letters."""
SWAPPED_MARKS = str.maketrans(",.", ".,")
SHAPE_BITS = 20
"""A series is rounded to float32 where that moves no value by more than 2**-SHAPE_BITS of the series' range."""


@dataclass(frozen=True)
class Cases:
    """Labelled series.

    series: (channels, time) each, of any lengths.
    labels: one label per case; None without labels. Files give text, "" for a case without a label.
    ids: names of the cases in their source; None without names.
    regression: the labels are real numbers, or targets of a regression.
    roles: role of each column of a table: id, time, label, channel, values or ignored.
    unequal_steps: series of a long table whose times are not on a regular grid. Their rows follow one another.
    """

    series: list[np.ndarray]
    labels: np.ndarray | None = None
    ids: np.ndarray | None = None
    regression: bool = False
    roles: dict[str, str] = field(default_factory=dict)
    unequal_steps: int = 0


def as_numbers(x: Any, *, name: str) -> np.ndarray:
    """Return an array of real numbers; masked and missing values (None, pandas.NA) become NaN.

    Raises:
        InputError: x does not convert. It is a TypeError as well where x has objects that are not numbers.
    """
    pandas = sys.modules.get("pandas")  # not imported: users with such objects have imported it
    try:
        if isinstance(x, np.ma.MaskedArray):
            return x.astype(np.float64).filled(np.nan)
        if pandas and isinstance(x, (pandas.Series, pandas.Index)) and x.dtype.kind in "biuf" and not isinstance(x.dtype, np.dtype):
            return x.to_numpy(np.float64, na_value=np.nan)
        array = np.asarray(x)
        if array.dtype.kind == "O":
            if pandas:
                array = np.where([value is pandas.NA for value in array.ravel()], None, array.ravel()).reshape(array.shape)
            array = array.astype(np.float64)
    except TypeError as error:
        raise InputTypeError(f"{name} has objects that are not numbers ({first_line(error)}); convert them") from error
    except (ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} is not an array of numbers; pass numbers, rows of one length") from error
    if array.dtype.kind == "V" and np.can_cast(array.dtype, np.float64):  # bfloat16 and the like
        array = array.astype(np.float32)
    if array.dtype.kind == "c":
        raise InputError(f"Complex data not supported: {name} has {array.dtype} values; pass real and imaginary parts as channels")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has {array.dtype} values; convert them to real numbers")
    return array


def is_missing(label: Any) -> bool:
    """Return whether a label is None, "", or differs from itself (NaN), or cannot be compared (pandas.NA)."""
    try:
        return label is None or label == "" or bool(label != label)
    except TypeError:
        return True


def parse_number(cell: str, decimal: str = ".") -> float:
    """Return the number that a text cell states with this decimal mark; NaN for MISSING.

    Raises:
        ValueError: the text is neither.
    """
    try:
        number = float(cell if decimal == "." else cell.translate(SWAPPED_MARKS))
    except ValueError:
        if cell.strip().lower() not in MISSING:
            raise
        return np.nan
    if "_" in cell:
        raise ValueError(cell)  # a name like 1_2, which Python reads as 12
    return number


def is_number(cell: str, decimal: str = ".") -> bool:
    """Return whether a text cell states a number or is empty."""
    with suppress(ValueError):
        return parse_number(cell, decimal) is not None
    return False


def clean_series(x: Shaped[np.ndarray, "..."], *, name: str = "the series") -> Float[np.ndarray, "channels time"]:
    """Return a series without missing values, (channels, time). The input is not changed.

    The result is float32 where float32 keeps the shape of every channel. A small signal on a large offset (a pressure of
    101,325 Pa that varies by 0.01) stays float64; `centre_to_float32` splits it.

    Time steps at either end that are missing (NaN) in all channels are padding, and are cut. Other missing values are
    interpolated linearly within their channel, and the first and last known values are repeated towards the ends; a channel
    without values becomes zero. The official implementation removes time steps that are missing in all channels, and writes
    0 elsewhere. That changes the time axis, and 0 is an outlier in a series at level 1e6.

    Args:
        x: shape (time,) or (channels, time), any real dtype.
        name: name of the series in error messages.

    Raises:
        InputError: x is not numeric, has another number of axes or no known value, or is infinite or beyond float32.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise InputError(f"{name} has {x.dtype} values; convert them to real numbers")
    if x.ndim not in (1, 2):
        raise InputError(f"{name} has shape {x.shape}; pass (time,) or (channels, time)")
    x = np.atleast_2d(x)
    if x.dtype == np.float32 and x.size and np.isfinite(x).all():
        return x.copy()
    with np.errstate(over="ignore"):  # of longer floats; infinite values are rejected below
        x = x.astype(np.float64)
    known = ~np.isnan(x)
    if not known.any():
        raise InputError(f"{name} has no value that is not missing; remove it")
    if np.abs(x[known]).max() > np.finfo(np.float32).max:
        raise InputError(f"{name} has infinite values or values beyond 3.4e38; mark them as missing (NaN) or rescale")
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
    """Return `clean_series` of many cases; most are only checked.

    Args:
        x: any real dtype.
        first: index of the first case, for error messages.
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


def centre_to_float32(x: Float[np.ndarray, " time"]) -> tuple[Float32[np.ndarray, " time"], np.float32]:
    """Return float32 values and the constant to add to them, the middle of the range.

    The constant is 0 for a float32 series whose level is no larger than its range. Otherwise the difference is exact, and
    interpolating it does not lose the shape: at level 1e6 and std 1, resized float32 has a shape error of 3e-2.
    Shapes and standard deviations of windows do not depend on the constant; `windows.normalise_windows` adds it to their means.
    """
    half_range = x.max() / 2 - x.min() / 2
    offset = np.float32(x.max() / 2 + x.min() / 2)
    if x.dtype == np.float32 and abs(offset) / 2 <= half_range:
        return x, np.float32(0)
    return (x - np.float64(offset)).astype(np.float32), offset


def difference(x: Float32[np.ndarray, " time"]) -> Float32[np.ndarray, "_"]:
    """Return first differences, (time - 1,), clipped to float32; a single time point gives a zero."""
    if len(x) == 1:
        return np.zeros_like(x)
    largest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        return np.clip(np.diff(x), -largest, largest)


def channel_statistics(series: Sequence[Float[np.ndarray, "channels _"]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel over all time points of all series, float64; a constant channel has std 1."""
    scale = np.maximum(np.max([np.abs(case).max(1) for case in series], axis=0), np.finfo(np.float32).tiny).astype(np.float64)
    points = sum(case.shape[1] for case in series)
    mean = sum((case / scale[:, None]).sum(1) for case in series) / points
    variance = sum(((case / scale[:, None] - mean[:, None]) ** 2).sum(1) for case in series) / points
    constant = np.max([np.ptp(case, axis=1) for case in series], axis=0) == 0
    return scale * mean, np.where(constant | (variance == 0), 1.0, scale * np.sqrt(variance))


def normalise_channels(
    case: Float[np.ndarray, "channels time"], *, means: Sequence[float], stds: Sequence[float]
) -> Float[np.ndarray, "channels time"]:
    """Return a case minus the means, divided by the standard deviations of its channels.

    Raises:
        InputError: the case has another number of channels, or a result is beyond float32.
    """
    if len(case) != len(means):
        raise InputError(f"a case has {len(case)} channels, and the normalisation was fitted on {len(means)}; pass as many")
    return clean_series((case.astype(np.float64) - np.asarray(means)[:, None]) / np.asarray(stds)[:, None], name="a normalised case")


def add_channel_differences(case: Float[np.ndarray, "channels time"]) -> Float[np.ndarray, "_ time"]:
    """Return a case with the differences of neighbouring channels as further channels, clipped to finite values.

    They are channel i minus channel i + 1; of three channels and more, the last minus the first as well. A case of one channel
    is returned as it is.
    """
    count = len(case) - 1 if len(case) < 3 else len(case)
    largest = np.finfo(case.dtype).max
    with np.errstate(over="ignore"):
        differences = np.clip(case[:count] - np.roll(case, -1, axis=0)[:count], -largest, largest)
    return np.concatenate([case, differences])


def split_long_series(x: Float[np.ndarray, " time"], max_length: int) -> list[Float[np.ndarray, "_"]]:
    """Split a series into the smallest number of segments of (nearly) equal length, of at most `max_length` time points.

    Corpora and embedding share this rule; features of a series are the mean over its segments. The official implementation
    is meant to cut at 2048 time points, but its limit has no effect.
    """
    return [x] if len(x) <= max_length else np.array_split(x, math.ceil(len(x) / max_length))


def pad_series(
    series: list[Float32[np.ndarray, "_"]], length: int
) -> tuple[Float32[np.ndarray, "batch {length}"], Int32[np.ndarray, " batch"]]:
    """Stack series of up to `length` time points, padded with zeros; return them with their lengths."""
    padded = np.zeros((len(series), length), np.float32)
    for row, values in zip(padded, series, strict=True):
        row[: len(values)] = values
    return padded, np.array([len(values) for values in series], np.int32)
