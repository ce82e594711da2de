"""Encoders of a single number: what turns the mean and the std of a window into vectors.

Each is a Flax module, (...) -> (..., dim), finite in value and gradient at any finite number. Mean and std share it. SCALAR_ENCODERS
is the table of them, by the name in `model.scalar_encoder`; it is open, and what is fitted to data is in FITTED.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.config import ModelConfig
from nutime_jax.core.scalars import (
    SCALAR_LIMIT,
    embed_at_locations,
    embed_scalar,
    log_magnitude,
    periodic_features,
    piecewise_linear,
    quantile_edges,
    symmetric_edges,
)
from nutime_jax.errors import InputError
from nutime_jax.models.layers import Linear

STRETCH_LIMIT = 1e6
"""A trained scale stays within a factor of 1e6 of where it began."""


class UnknownScalarEncoderError(InputError):
    """A scalar encoder that is not in the table, or not yet: one from outside is put there before what it trained is loaded."""


class NME(nn.Module):
    """Numerically multi-scaled embedding with trained weights and biases, both drawn from U(-1, 1).

    The release sums over locations, too: by default as they are, by options of its own with weights that fall with the
    distance, and with a trained vector a location. Here locations always have both; without any, the scalar is seen from
    zero, as published.

    scales: the magnitudes k_i (published: 1e-4 … 1e4).
    dim: width of the embedding.
    weighted: weigh the scales by the distance of the scalar's magnitude from them.
    trained: train the logarithm of what each scale is multiplied by, from 0 on.
    scale_eps: see `core.scalars.embed_scalar`.
    locations: numbers that the scalar is seen from, see `core.scalars.embed_at_locations`; none is zero alone.
    """

    scales: Sequence[float]
    dim: int
    weighted: bool = True
    trained: bool = False
    scale_eps: Literal["absolute", "relative"] = "absolute"
    locations: Sequence[float] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        shape = (len(self.scales), self.dim)
        weight = self.param("weight", _uniform, shape)
        bias = self.param("bias", _uniform, shape)
        # The release keeps its scales in float32; float64 runs see the same numbers.
        scales = jnp.asarray(self.scales, jnp.float32).astype(x.dtype)
        if self.trained:
            scales = rescaled_scales(scales, self.param("log_stretch", nn.initializers.zeros, (len(self.scales),)))
        embed = partial(embed_scalar, weight=weight, bias=bias, scales=scales, weighted=self.weighted, scale_eps=self.scale_eps)
        if not self.locations:
            return embed(x)
        table = self.param("location", nn.initializers.normal(0.02), (len(self.locations), self.dim))
        return embed_at_locations(x, embed, jnp.asarray(self.locations, x.dtype), table)


def rescaled_scales(scales: Float[Array, " scales"], log_stretch: Float[Array, " scales"]) -> Float[Array, " scales"]:
    """Scales as trained; they stay positive."""
    limit = float(np.log(STRETCH_LIMIT))
    return scales * jnp.exp(jnp.clip(log_stretch, -limit, limit))


class Periodic(nn.Module):
    """cos(2 pi c x) and sin(2 pi c x), with dim / 2 coefficients c; see `core.scalars.periodic_features`.

    The release has it in place of the NME as well, and lays its features over the windows along the wrong axis, which
    mixes those of several windows; here each window has its own.

    dim: width of the embedding, an even number.
    initial: "normal" (c from N(0, scale^2)) or "log-linear" (c_i = scale^(i / n), for i from 0 to n - 1).
    scale: published, 0.027.
    trained: train the coefficients; they are fixed as published.
    """

    dim: int
    initial: Literal["normal", "log-linear"] = "normal"
    scale: float = 0.027
    trained: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        shape = (self.dim // 2,)
        draw = nn.initializers.normal(self.scale) if self.initial == "normal" else partial(_geometric, self.scale)
        if self.trained:
            coefficients = self.param("coefficients", draw, shape)
        else:
            coefficients = self.variable("constants", "coefficients", lambda: draw(self.make_rng("params"), shape)).value
        return periodic_features(x, coefficients.astype(x.dtype))


class Piecewise(nn.Module):
    """How far a scalar is into each of several bins, and a linear layer; see `core.scalars.piecewise_linear`.

    The edges of the bins are fitted to the training data before the first step (`train.fitting`), and are no parameters.
    Until then they are `core.scalars.symmetric_edges`. The release fits means and stds apart, and goes on in a line
    beyond the outermost edges, without end; here one set of edges is for both, and beyond them nothing changes.

    bins: their number.
    dim: width of the embedding.
    """

    bins: int
    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        edges = self.variable("constants", "edges", lambda: jnp.asarray(symmetric_edges(self.bins)))
        return Linear(self.dim, name="out")(piecewise_linear(x, edges.value.astype(x.dtype)))


class Logarithmic(nn.Module):
    """Two layers on the sign and the logarithm of the magnitude, `core.scalars.log_magnitude`; a baseline.

    dim: width of the embedding, and between the layers.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        hidden = nn.gelu(Linear(self.dim, name="in")(log_magnitude(x)[..., None]), approximate=False)
        return Linear(self.dim, name="out")(hidden)


class Affine(nn.Module):
    """One linear layer on the scalar itself, clipped to SCALAR_LIMIT; a baseline.

    dim: width of the embedding.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        return Linear(self.dim, name="out")(jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)[..., None])


SCALAR_ENCODERS: dict[str, Callable[[ModelConfig, str | None], nn.Module]] = {
    "nme": lambda model, name: NME(
        model.scales, model.scale_dim, model.scale_weighting, model.learnable_scales, model.scale_eps, model.locations, name=name
    ),
    "periodic": lambda model, name: Periodic(
        model.scale_dim, model.frequency_init, model.frequency_scale, model.learnable_frequencies, name=name
    ),
    "piecewise": lambda model, name: Piecewise(model.bins, model.scale_dim, name=name),
    "log": lambda model, name: Logarithmic(model.scale_dim, name=name),
    "linear": lambda model, name: Affine(model.scale_dim, name=name),
}
"""Name -> module, from the options of the model and the name of the module."""

FITTED: dict[str, Callable[[ModelConfig, np.ndarray], Mapping[str, np.ndarray]]] = {
    "piecewise": lambda model, values: {"edges": quantile_edges(values, model.bins)},
}
"""Name -> fitted constants, from the options of the model and a sample of the scalars of the training data."""

PLACE = "scalars"


def scalar_encoder_scope(kind: str) -> str:
    """The name under which the variables of a scalar encoder are found in those of the embedding."""
    return "nme" if kind == "nme" else PLACE


def build_scalar_encoder(model: ModelConfig) -> nn.Module:
    """Return the scalar encoder of a model; called within the module that it is a part of."""
    return SCALAR_ENCODERS[model.scalar_encoder](model, scalar_encoder_scope(model.scalar_encoder))


def check_scalar_encoder(model: ModelConfig) -> None:
    """Check the options of the scalar encoder.

    Raises:
        InputError: the scalar encoder is not registered, or an option does not fit it.
    """
    if model.scalar_encoder not in tuple(SCALAR_ENCODERS):
        known = ", ".join(SCALAR_ENCODERS)
        raise UnknownScalarEncoderError(
            f"model.scalar_encoder is {model.scalar_encoder!r}; choose one of {known}, or put it into models.scalars.SCALAR_ENCODERS"
        )
    if model.scalar_encoder == "periodic" and model.scale_dim % 2:
        raise InputError(f"model.scale_dim is {model.scale_dim}, and periodic features come in pairs; choose an even number")
    if model.scalar_encoder == "nme" and model.window_stats != "none" and not model.scales:
        raise InputError("model.scales is empty, and the NME needs a scale; choose numbers above 0")


def _uniform(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -1, 1)


def _geometric(base: float, key, shape, dtype=jnp.float32):
    return base ** (jnp.arange(*shape, dtype=dtype) / max(*shape, 1))
