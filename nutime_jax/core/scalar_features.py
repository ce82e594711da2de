"""Features of a scalar other than the NME: periodic, piecewise linear, logarithmic (Gorishniy et al., 2022, has the first two)."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nutime_jax.core.nme import SCALAR_LIMIT, align
from nutime_jax.errors import InputError

TURNS_LIMIT = 2.0**20
"""Turns that periodic features tell apart; beyond it float32 knows no more than an eighth of a turn."""
EDGE_LIMIT = 1e38
"""Edges are clipped to ±1e38, so that bins have a finite width in float32."""
SMALLEST, LARGEST = 1e-4, 1e4
"""Magnitudes that the released NME tells apart; what knows nothing of the data is laid out between them."""


def periodic_features(x: Float[Array, "*batch"], coefficients: Float[Array, " n"]) -> Float[Array, "*batch 2*n"]:
    """cos(2 pi c x) for each coefficient c, then sin(2 pi c x); turns beyond TURNS_LIMIT are clipped.

    Args:
        x: scalars, shape (...).
        coefficients: turns a unit of x, shape (n,).
    """
    x = jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)[..., None]
    turns = jnp.clip(x * align(coefficients, x.ndim - 1), -TURNS_LIMIT, TURNS_LIMIT)
    angle = 2 * math.pi * (turns - jnp.round(turns))  # whole turns are left out before pi rounds them
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def piecewise_linear(x: Float[Array, "*batch"], edges: Float[Array, " edges"]) -> Float[Array, "*batch edges-1"]:
    """How far x is into each bin, 0 before it and 1 beyond it: clip((x - low) / (high - low), 0, 1).

    A bin without width is a step: 0 below its edge, 1 from it on.

    Args:
        x: scalars, shape (...).
        edges: of the bins, ascending, at most EDGE_LIMIT in magnitude, shape (bins + 1,).
    """
    low, high = (align(one, x.ndim) for one in (edges[:-1], edges[1:]))
    line = x[..., None]
    width = high - low
    wide = width >= jnp.finfo(x.dtype).tiny  # accelerators count smaller ones as zero
    inside = (jnp.clip(line, low, high) - low) / jnp.where(wide, width, 1)
    return jnp.where(wide, inside, (line >= high).astype(x.dtype))


def quantile_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges of bins that hold as many of the values each, float32 (bins + 1,): the smallest value, quantiles, the largest.

    A value that is frequent may be several edges; the bins between them have no width.

    Args:
        values: scalars, of any shape.
        bins: 1 or more.

    Raises:
        InputError: there are no values, one is not finite, all are the same, or there are no bins.
    """
    values = np.asarray(values, np.float64).ravel()
    if bins < 1:
        raise InputError(f"bins is {bins}; choose 1 or more")
    if not values.size or not np.isfinite(values).all():
        raise InputError(
            f"bins cannot be laid over {values.size} scalars{' of which some are not finite' * (values.size > 0)}; give finite ones"
        )
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)).clip(-EDGE_LIMIT, EDGE_LIMIT).astype(np.float32)
    if edges[0] == edges[-1]:
        raise InputError(f"bins cannot be laid over {values.size} scalars that all are {edges[0]:g}; give scalars that differ")
    return edges


def symmetric_edges(bins: int) -> np.ndarray:
    """Edges that know no data, float32 (bins + 1,): from -LARGEST to LARGEST, even below SMALLEST, by magnitude above."""
    reach = np.arcsinh(LARGEST / SMALLEST)
    return (SMALLEST * np.sinh(np.linspace(-reach, reach, bins + 1))).astype(np.float32)


def signed_log(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """asinh(x / SMALLEST): linear about zero, and from SMALLEST on the sign of x and the logarithm of its magnitude.

    A factor of e is 1 wherever it is. Finite for every finite x, which is clipped to ±SCALAR_LIMIT as for the NME.
    """
    return jnp.arcsinh(jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT) / SMALLEST)


def log_magnitude(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`signed_log`, as 1 at LARGEST."""
    return signed_log(x) / math.asinh(LARGEST / SMALLEST)
