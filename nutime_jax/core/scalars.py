"""Embeddings and features of a scalar of any magnitude, such as the mean of a window.

Numerically multi-scaled embedding (NME; paper, section 3.3); periodic and piecewise-linear features (Gorishniy et al., 2022); logarithm.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nutime_jax.errors import InputError

SCALAR_LIMIT = 1e16
"""Scalars are clipped to ±1e16 before they are embedded.

Float32 squares of the embedding stay finite up to there for weights up to about 100. Little is lost: above 1e12 every
scale's bias is below float32 resolution beside the scalar, and only the slowly moving scale weights still tell magnitudes
apart.
"""


def scale_weights(x: Float[Array, "*batch"], scales: Float[Array, " scales"], *, eps: float = 1e-6) -> Float[Array, "*batch scales"]:
    """How much each scale k takes part: proportional to 1 / (|log(|x|/k + eps)| + eps), summing to 1.

    Args:
        x: scalars, shape (...).
        scales: positive scales, shape (scales,).
    """
    ratio = jnp.abs(x)[..., None] / expand_leading_dims(scales, x.ndim)
    weights = 1 / (jnp.abs(jnp.log(ratio + eps)) + eps)
    return weights / weights.sum(-1, keepdims=True)


def embed_scalar(
    x: Float[Array, "*batch"],
    weight: Float[Array, "scales dim"],
    bias: Float[Array, "scales dim"],
    scales: Float[Array, " scales"],
    *,
    weighted: bool = True,
    scale_eps: Literal["absolute", "relative"] = "absolute",
    eps: float = 1e-5,
) -> Float[Array, "*batch dim"]:
    """Embeds scalars at several scales: sum over i of alpha_i(x) * LayerNorm(weight_i * x + bias_i * scale_i).

    The layer norm has no affine part. Finite, in value and gradient, for every finite x (see SCALAR_LIMIT).

    No array of (..., scales, dim) is ever made. The layer norm of a line in x needs its variance alone, which is a
    quadratic in x with three coefficients a scale; what is left is a product of (..., scales) with (scales, dim). The
    variance cancels only where the centred rows of weight and bias are parallel, which dim > 2 leaves to chance.

    Args:
        x: scalars, shape (...).
        weight, bias: one row a scale, shape (scales, dim).
        scales: positive scales, shape (scales,).
        weighted: weigh the scales by `scale_weights`; otherwise they are summed as they are (the paper's ablation).
        scale_eps: "absolute" as published: eps is in squared units of x, which blinds scales below sqrt(eps), 3e-3, so that x
            and -x nearly coincide there. "relative": it is in units of each scale's own square, as if the layer norm were
            that of weight * (x / scale) + bias; x and scales times a power of two then have the same embedding, to the bit.
        eps: epsilon of the layer norm.
    """
    x = jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)
    slope = weight - weight.mean(-1, keepdims=True)
    offset = bias - bias.mean(-1, keepdims=True)
    line = x[..., None]
    if scale_eps == "relative":
        line = jnp.clip(line / expand_leading_dims(scales, x.ndim), -SCALAR_LIMIT, SCALAR_LIMIT)
    else:
        offset = offset * scales[:, None]
    quadratic, linear, constant = (
        expand_leading_dims((a * b).mean(-1), x.ndim) for a, b in ((slope, slope), (slope, offset), (offset, offset))
    )
    variance = (quadratic * line + 2 * linear) * line + constant
    factor = 1 / jnp.sqrt(jnp.maximum(variance, 0) + eps)
    if weighted:
        factor = factor * scale_weights(x, scales)
    # Float32 products whatever the default: rows of slope and offset differ by decades.
    return jnp.matmul(factor * line, slope, precision="highest") + jnp.matmul(factor, offset, precision="highest")


def location_weights(
    x: Float[Array, "*batch"], locations: Float[Array, " locations"], *, eps: float = 1e-6
) -> Float[Array, "*batch locations"]:
    """How much each location l takes part: proportional to 1 / (log(1 + |x - l|) + eps), summing to 1."""
    weights = 1 / (jnp.log1p(jnp.abs(_distances(x, locations))) + eps)
    return weights / weights.sum(-1, keepdims=True)


def embed_at_locations(
    x: Float[Array, "*batch"],
    embed: Callable[[Float[Array, "*batch locations"]], Float[Array, "*batch locations dim"]],
    locations: Float[Array, " locations"],
    table: Float[Array, "locations dim"],
) -> Float[Array, "*batch dim"]:
    """Embeds scalars as seen from several locations: sum over l of beta_l(x) * (embed(x - l) + table_l).

    Args:
        embed: embeds the distances, see `embed_scalar`.
        locations: where scalars are seen from, shape (locations,).
        table: the embedding of each location itself, shape (locations, dim).
    """
    seen = embed(_distances(x, locations)) + expand_leading_dims(table, x.ndim)
    return jnp.einsum("...l,...ld->...d", location_weights(x, locations), seen, precision="highest")


def _distances(x: Float[Array, "*batch"], locations: Float[Array, " locations"]) -> Float[Array, "*batch locations"]:
    return jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)[..., None] - expand_leading_dims(locations, x.ndim)


def expand_leading_dims(array: Array, leading: int) -> Array:
    """Puts `leading` axes of size one in front: broadcasting over the batch is said, never implied."""
    return array.reshape((1,) * leading + array.shape)


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
    turns = jnp.clip(x * expand_leading_dims(coefficients, x.ndim - 1), -TURNS_LIMIT, TURNS_LIMIT)
    angle = 2 * math.pi * (turns - jnp.round(turns))  # whole turns are left out before pi rounds them
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def piecewise_linear(x: Float[Array, "*batch"], edges: Float[Array, " edges"]) -> Float[Array, "*batch edges-1"]:
    """How far x is into each bin, 0 before it and 1 beyond it: clip((x - low) / (high - low), 0, 1).

    A bin without width is a step: 0 below its edge, 1 from it on.

    Args:
        x: scalars, shape (...).
        edges: of the bins, ascending, at most EDGE_LIMIT in magnitude, shape (bins + 1,).
    """
    low, high = (expand_leading_dims(one, x.ndim) for one in (edges[:-1], edges[1:]))
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
