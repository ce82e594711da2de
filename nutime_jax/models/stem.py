"""Pooled stem features: how strongly, and how often, a series matches the trained shape kernels at several dilations."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nutime_jax.core.windows import normalise_windows

POSITIONS = 128
"""Windows per dilation."""
THRESHOLDS = (-0.5, 0.0, 0.5)
"""Thresholds of the proportions of positive values, in units of the std of the responses of a kernel."""
RAMP = 0.2
"""Width of a threshold, in the same unit. A step would turn a rounding error into a change of 1 / POSITIONS."""
LEAST_STD = 1e-2
"""Least std of responses in thresholds; the responses are those of a series of std 1 and of kernels of norm 1."""
LEAST_SCALE, LEAST_NORM = 1e-30, 1e-6
"""Std of a series, and norm of a kernel, below which they normalise towards zero."""
STATISTICS = len(THRESHOLDS) + 2
"""Numbers per kernel and dilation."""


def pooled_stem_features(
    x: Float[Array, "*batch time"], kernels: Float[Array, "window count"], *, dilations: Sequence[int]
) -> Float[Array, "*batch features"]:
    """Return statistics over time of the responses to kernels: proportions above three thresholds, maximum, std.

    The series is normalised as a whole, and a kernel has mean 0 and norm 1, so features depend neither on the level nor on
    the scale of the series. A response is the product of a kernel and a window whose time points are `dilation` apart. The
    windows of a dilation are spread evenly; beyond its ends, the series keeps its first and last value. A constant series
    has the proportions 1, 0.5 and 0, maximum 0 and std 0. Proportions of positive values come from ROCKET (Dempster et al., 2020).

    Args:
        x: series, finite, (..., time).
        kernels: one column per kernel; the shape kernels of an encoder.
        dilations: time points between the points of a window, of each dilation.

    Returns:
        (..., len(dilations) * STATISTICS * count).
    """
    window, length = len(kernels), x.shape[-1]
    series = normalise_windows(x, window=length, eps=LEAST_SCALE).normalised[..., 0, :]
    kernels = kernels - kernels.mean(0, keepdims=True)
    kernels = kernels / jnp.sqrt(jnp.maximum(jnp.square(kernels).sum(0, keepdims=True), LEAST_NORM**2))
    starts = np.arange(0, length, max(length // POSITIONS, 1))
    taps = [dilation * np.arange(window) - dilation * (window - 1) // 2 for dilation in dilations]
    # Beyond its ends the series keeps its first and last value.
    points = np.stack([np.clip(starts[:, None] + offsets, 0, length - 1) for offsets in taps])

    def features(points: Int[Array, "positions window"]) -> Float[Array, "*batch features"]:
        windows = jnp.take(series, points, axis=-1)
        # Kernels have mean 0, so the first value of a window adds nothing; without it, flat windows respond with exact zeros.
        return _pool((windows - windows[..., :1]) @ kernels)

    pooled = jax.lax.map(features, jnp.asarray(points))  # compiled once for all dilations
    return jnp.moveaxis(pooled, 0, -2).reshape(*x.shape[:-1], -1)


def _pool(responses: Float[Array, "*batch positions count"]) -> Float[Array, "*batch features"]:
    centred = responses - responses.mean(-2, keepdims=True)
    variance = jnp.square(centred).mean(-2, keepdims=True)
    std = jnp.sqrt(jnp.maximum(variance, LEAST_STD**2))
    scaled = responses / (RAMP * std)
    proportions = [jnp.clip(scaled - threshold / RAMP + 0.5, 0, 1).mean(-2) for threshold in THRESHOLDS]
    spread = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    return jnp.concatenate([*proportions, responses.max(-2), spread[..., 0, :]], axis=-1)
