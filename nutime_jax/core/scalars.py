"""Embeddings and features of scalars of any magnitude, such as the mean of a window.

Numerically multi-scaled embedding (NME; paper section 3.3), periodic and piecewise-linear features (Gorishniy et al., 2022),
and the signed logarithm.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nutime_jax.errors import InputError

SCALAR_LIMIT = 1e16
"""Scalars are clipped to ±1e16 before the embedding.

Up to this limit, float32 squares in the embedding are finite for weights up to about 100. Little is lost: above 1e12 the bias
of every scale is below the float32 resolution of the scalar, and only the slowly varying scale weights depend on the magnitude.
"""
TURNS_LIMIT = 2.0**20
"""Maximum turns of periodic features; at more, the float32 resolution is coarser than an eighth of a turn."""
EDGE_LIMIT = 1e38
"""Bin edges are clipped to ±1e38, so that bins have a finite width in float32."""
MIN_MAGNITUDE, MAX_MAGNITUDE = 1e-4, 1e4
"""Range of the scales of the paper, used by features that are not fitted to data."""


def scale_weights(x: Float[Array, "*batch"], scales: Float[Array, " scales"], *, eps: float = 1e-6) -> Float[Array, "*batch scales"]:
    """Return scale weights proportional to 1 / (|log(|x|/k + eps)| + eps) for scale k; they sum to 1 (paper section 3.3).

    Args:
        x: scalars, (…).
        scales: positive scales, (scales,).
        eps: avoids a logarithm of 0 and a division by 0.
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
    """Embed scalars at several scales (NME): sum over i of alpha_i(x) * LayerNorm(weight_i * x + bias_i * scale_i).

    The layer norm has no affine part. Value and gradient are finite for every finite x (see SCALAR_LIMIT).

    No array (…, scales, dim) is materialised: the variance in the layer norm of a linear function of x is a quadratic in x
    with three coefficients per scale. What remains is a matmul of (…, scales) with (scales, dim). The variance cancels
    only if the centred rows of weight and bias are parallel, which is improbable for dim > 2.

    Args:
        x: scalars, (…).
        weight, bias: one row per scale, (scales, dim).
        scales: positive scales, (scales,).
        weighted: whether scales are weighted by `scale_weights` (paper); otherwise they are summed (ablation of the paper).
        scale_eps: "absolute" (paper): eps is in squared units of x, so scales below sqrt(eps) = 3e-3 hardly distinguish x
            and -x. "relative": eps is in units of the squared scale, as in the layer norm of weight * (x / scale) + bias;
            x and scales multiplied by a power of two then have the same embedding, bit for bit.
        eps: epsilon of the layer norm.

    Returns:
        (…, dim).
    """
    x = jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)
    slope = weight - weight.mean(-1, keepdims=True)
    offset = bias - bias.mean(-1, keepdims=True)
    line = x[..., None]
    if scale_eps == "relative":
        line = jnp.clip(line / expand_leading_dims(scales, x.ndim), -SCALAR_LIMIT, SCALAR_LIMIT)
    else:
        offset = offset * scales[:, None]
    products = ((slope, slope), (slope, offset), (offset, offset))
    quadratic, linear, constant = (expand_leading_dims((a * b).mean(-1), x.ndim) for a, b in products)
    variance = (quadratic * line + 2 * linear) * line + constant
    factor = 1 / jnp.sqrt(jnp.maximum(variance, 0) + eps)
    if weighted:
        factor = factor * scale_weights(x, scales)
    # Always float32 matmuls: rows of slope and offset differ by orders of magnitude.
    return jnp.matmul(factor * line, slope, precision="highest") + jnp.matmul(factor, offset, precision="highest")


def location_weights(
    x: Float[Array, "*batch"], locations: Float[Array, " locations"], *, eps: float = 1e-6
) -> Float[Array, "*batch locations"]:
    """Return location weights proportional to 1 / (log(1 + |x - l|) + eps) for location l; they sum to 1."""
    weights = 1 / (jnp.log1p(jnp.abs(_distances(x, locations))) + eps)
    return weights / weights.sum(-1, keepdims=True)


def embed_at_locations(
    x: Float[Array, "*batch"],
    embed: Callable[[Float[Array, "*batch locations"]], Float[Array, "*batch locations dim"]],
    locations: Float[Array, " locations"],
    table: Float[Array, "locations dim"],
) -> Float[Array, "*batch dim"]:
    """Embed scalars relative to several locations: sum over l of beta_l(x) * (embed(x - l) + table_l).

    Args:
        x: scalars, (…).
        embed: embedding of distances, see `embed_scalar`.
        locations: reference points, (locations,).
        table: embedding of each location, (locations, dim).
    """
    embedded = embed(_distances(x, locations)) + expand_leading_dims(table, x.ndim)
    return jnp.einsum("...l,...ld->...d", location_weights(x, locations), embedded, precision="highest")


def _distances(x: Float[Array, "*batch"], locations: Float[Array, " locations"]) -> Float[Array, "*batch locations"]:
    return jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)[..., None] - expand_leading_dims(locations, x.ndim)


def expand_leading_dims(array: Array, count: int) -> Array:
    """Prepend `count` axes of size one, so that ranks are never promoted implicitly."""
    return array.reshape((1,) * count + array.shape)


def periodic_features(x: Float[Array, "*batch"], coefficients: Float[Array, " n"]) -> Float[Array, "*batch 2*n"]:
    """Return cos(2 pi c x) for each coefficient c, then sin(2 pi c x); turns are clipped to ±TURNS_LIMIT.

    Args:
        x: scalars, (…).
        coefficients: turns per unit of x, (n,).
    """
    x = jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)[..., None]
    turns = jnp.clip(x * expand_leading_dims(coefficients, x.ndim - 1), -TURNS_LIMIT, TURNS_LIMIT)
    angle = 2 * math.pi * (turns - jnp.round(turns))  # whole turns are removed before the multiplication with pi rounds
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def piecewise_linear(x: Float[Array, "*batch"], edges: Float[Array, " edges"]) -> Float[Array, "*batch edges-1"]:
    """Return the position of x in each bin, 0 below it and 1 above it: clip((x - low) / (high - low), 0, 1).

    A bin of width 0 is a step: 0 below its edge, 1 from it on.

    Args:
        x: scalars, (…).
        edges: bin edges, ascending, at most EDGE_LIMIT in magnitude, (bins + 1,).
    """
    low, high = (expand_leading_dims(edge, x.ndim) for edge in (edges[:-1], edges[1:]))
    line = x[..., None]
    width = high - low
    wide = width >= jnp.finfo(x.dtype).tiny  # accelerators flush smaller widths to zero
    inside = (jnp.clip(line, low, high) - low) / jnp.where(wide, width, 1)
    return jnp.where(wide, inside, (line >= high).astype(x.dtype))


def quantile_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of bins with equal numbers of values, float32 (bins + 1,): minimum, quantiles, maximum.

    A frequent value may be several edges; the bins between them have width 0.

    Args:
        values: scalars of any shape.
        bins: number of bins, 1 or more.

    Raises:
        InputError: values are empty, not finite or all equal, or there are no bins.
    """
    values = np.asarray(values, np.float64).ravel()
    if bins < 1:
        raise InputError(f"bins is {bins}; choose 1 or more")
    if not values.size or not np.isfinite(values).all():
        what = "not all finite" if values.size else "empty"
        raise InputError(f"bins cannot be fitted to {values.size} scalars ({what}); pass finite scalars")
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)).clip(-EDGE_LIMIT, EDGE_LIMIT).astype(np.float32)
    if edges[0] == edges[-1]:
        raise InputError(f"bins cannot be fitted to {values.size} scalars that all are {edges[0]:g}; pass scalars that differ")
    return edges


def symmetric_edges(bins: int) -> np.ndarray:
    """Return edges that need no data, float32 (bins + 1,): from -MAX_MAGNITUDE to MAX_MAGNITUDE.

    They are evenly spaced below MIN_MAGNITUDE, and in the logarithm of the magnitude above.
    """
    limit = np.arcsinh(MAX_MAGNITUDE / MIN_MAGNITUDE)
    return (MIN_MAGNITUDE * np.sinh(np.linspace(-limit, limit, bins + 1))).astype(np.float32)


def signed_log(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return asinh(x / MIN_MAGNITUDE): linear near zero, sign and logarithm of the magnitude above MIN_MAGNITUDE.

    A factor of e is 1 at all larger magnitudes. Finite for every finite x, which is clipped to ±SCALAR_LIMIT.
    """
    return jnp.arcsinh(jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT) / MIN_MAGNITUDE)


def log_magnitude(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return `signed_log`, scaled to 1 at MAX_MAGNITUDE."""
    return signed_log(x) / math.asinh(MAX_MAGNITUDE / MIN_MAGNITUDE)
