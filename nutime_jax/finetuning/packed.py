"""Labelled cases as flat arrays on the device, padded to common capacities so that datasets share compiled functions."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nutime_jax.core.resample import MAX_LENGTH, resize
from nutime_jax.core.views import random_crop_resize
from nutime_jax.data.device_corpus import PackedSeries, pack_series
from nutime_jax.data.series import centre_to_float32
from nutime_jax.errors import InputError

LEAST_CASES, LEAST_POINTS, LEAST_CLASSES = 1 << 10, 1 << 20, 1 << 3
"""Minimum capacities: 4 MB, enough for most archive datasets, which then share one compiled function."""


class PackedCases(NamedTuple):
    """Labelled cases, padded to a capacity; padding is never sampled.

    packed: `starts` and `offsets` per channel, (cases, channels); `lengths` per case, (cases,).
    labels: index of the class, (cases,); -1 is a class that training does not have.
    """

    packed: PackedSeries
    labels: jax.Array


class EvalViews(NamedTuple):
    """Inputs of the encoder: values (batch, channels, time) and offsets (batch, channels)."""

    values: jax.Array
    offsets: jax.Array


def round_up(size: int, least: int) -> int:
    """Return the next power of two, at least `least`."""
    return max(least, 1 << max(size - 1, 0).bit_length())


def pack_cases(series: Sequence[np.ndarray], labels: np.ndarray) -> PackedCases:
    """Copy cases (channels, time) of any lengths to the device.

    Raises:
        InputError: a series or the dataset has too many time points for 32-bit indices.
    """
    longest, points = max(case.shape[1] for case in series), sum(case.size for case in series)
    if longest > MAX_LENGTH or points > 1 << 30:
        raise InputError(
            f"The dataset has {points} time points, {longest} in its longest series; at most {1 << 30} and {MAX_LENGTH} are "
            "supported. Shorten the series, or select fewer channels or cases."
        )
    count, channels = round_up(len(series), LEAST_CASES), len(series[0])
    packed = pack_series(
        (centre_to_float32(channel) for case in series for channel in case),
        num_points=round_up(points, LEAST_POINTS),
        num_series=count * channels,
    )
    starts, lengths, offsets = (array.reshape(count, channels) for array in packed[1:])
    packed = PackedSeries(packed.values, starts=starts, lengths=lengths[:, 0], offsets=offsets)
    padded_labels = np.zeros(count, np.int32)
    padded_labels[: len(series)] = labels
    return jax.device_put(PackedCases(packed, padded_labels))


def sample_views(key: jax.Array, cases: PackedCases, rows: jax.Array, *, size: int, ratio: tuple[float, float]) -> EvalViews:
    """Return a random crop of each of `rows`, resized to `size` time points; the channels of a case share it."""

    def view_case(key, starts, length):
        return jax.vmap(lambda start: random_crop_resize(key, cases.packed.values, length, start=start, size=size, ratio=ratio))(starts)

    values = jax.vmap(view_case)(jax.random.split(key, len(rows)), cases.packed.starts[rows], cases.packed.lengths[rows])
    return EvalViews(values, cases.packed.offsets[rows])


def full_views(cases: PackedCases, rows: jax.Array, *, size: int) -> EvalViews:
    """Return each of `rows`, resized to `size` time points."""

    def view_case(starts, length):
        return jax.vmap(lambda start: resize(cases.packed.values, size, start=start, length=length))(starts)

    return EvalViews(jax.vmap(view_case)(cases.packed.starts[rows], cases.packed.lengths[rows]), cases.packed.offsets[rows])


def class_mask(capacity: int, classes: jax.Array) -> jax.Array:
    """Return which outputs of the head are classes of the dataset."""
    return jnp.arange(capacity) < classes
