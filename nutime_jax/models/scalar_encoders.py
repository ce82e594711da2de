"""Scalar encoders: embeddings of the mean and std of a window.

Each is a Flax module (…) -> (…, dim) with finite values and gradients for every finite number. Mean and std share it.
SCALAR_ENCODERS maps values of `model.scalar_encoder` to modules; it is open. DATA_FITTED_CONSTANTS lists constants that are
fitted to the training data.
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
"""Maximum factor between a learnable scale and its initial value."""


class UnknownScalarEncoderError(InputError):
    """The scalar encoder is not registered. One from outside the package must be registered before its weights are loaded."""


class NME(nn.Module):
    """Numerically multi-scaled embedding (paper section 3.3), with weights and biases initialised from U(-1, 1).

    The official code also sums over locations: unweighted by default, optionally with weights that fall with the distance
    and with a learnable vector per location. Here locations always have both. Without locations, the form is the paper's.

    scales: magnitudes k_i (paper: 1e-4 to 1e4).
    dim: width of the embedding.
    weighted: whether scales are weighted by their distance from the magnitude of the scalar.
    trained: whether the log of a factor per scale is trained, initially 0.
    scale_eps: see `core.scalars.embed_scalar`.
    locations: see `core.scalars.embed_at_locations`; empty is location 0 alone.
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
        # The official code stores its scales in float32; float64 runs use the same values.
        scales = jnp.asarray(self.scales, jnp.float32).astype(x.dtype)
        if self.trained:
            scales = rescaled_scales(scales, self.param("log_stretch", nn.initializers.zeros, (len(self.scales),)))
        embed = partial(embed_scalar, weight=weight, bias=bias, scales=scales, weighted=self.weighted, scale_eps=self.scale_eps)
        if not self.locations:
            return embed(x)
        table = self.param("location", nn.initializers.normal(0.02), (len(self.locations), self.dim))
        return embed_at_locations(x, embed, jnp.asarray(self.locations, x.dtype), table)


def rescaled_scales(scales: Float[Array, " scales"], log_stretch: Float[Array, " scales"]) -> Float[Array, " scales"]:
    """Return learnable scales: initial scales times exp(log_stretch), limited by STRETCH_LIMIT; they stay positive."""
    limit = float(np.log(STRETCH_LIMIT))
    return scales * jnp.exp(jnp.clip(log_stretch, -limit, limit))


class Periodic(nn.Module):
    """cos(2 pi c x) and sin(2 pi c x) with dim / 2 coefficients c, see `core.scalars.periodic_features`.

    The official code has this encoder too, but arranges its features along the wrong axis, which mixes windows. Here each
    window has its own features.

    dim: width of the embedding, an even number.
    initial: "normal" (c from N(0, scale^2)) or "log-linear" (c_i = scale^(i / n), i from 0 to n - 1).
    scale: paper default 0.027.
    trained: whether the coefficients are trained (paper: fixed).
    """

    dim: int
    initial: Literal["normal", "log-linear"] = "normal"
    scale: float = 0.027
    trained: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        shape = (self.dim // 2,)
        init = nn.initializers.normal(self.scale) if self.initial == "normal" else partial(_geometric, self.scale)
        if self.trained:
            coefficients = self.param("coefficients", init, shape)
        else:
            coefficients = self.variable("constants", "coefficients", lambda: init(self.make_rng("params"), shape)).value
        return periodic_features(x, coefficients.astype(x.dtype))


class Piecewise(nn.Module):
    """Position within each of several bins, then a linear layer, see `core.scalars.piecewise_linear`.

    Bin edges are constants, fitted to the training data before the first step (`training.data_dependent_init`); before
    that they are `core.scalars.symmetric_edges`. The official code fits means and stds separately and extrapolates beyond
    the outermost edges without limit. Here both share the edges, and features are constant beyond them.

    bins: number of bins.
    dim: width of the embedding.
    """

    bins: int
    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        edges = self.variable("constants", "edges", lambda: jnp.asarray(symmetric_edges(self.bins)))
        return Linear(self.dim, name="out")(piecewise_linear(x, edges.value.astype(x.dtype)))


class Logarithmic(nn.Module):
    """Two layers on `core.scalars.log_magnitude` (sign and log of the magnitude); a baseline.

    dim: width of the embedding and between the layers.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        hidden = nn.gelu(Linear(self.dim, name="in")(log_magnitude(x)[..., None]), approximate=False)
        return Linear(self.dim, name="out")(hidden)


class LinearScalarEncoder(nn.Module):
    """Linear layer on the scalar, clipped to SCALAR_LIMIT; a baseline.

    dim: width of the embedding.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        return Linear(self.dim, name="out")(jnp.clip(x, -SCALAR_LIMIT, SCALAR_LIMIT)[..., None])


def _nme(model: ModelConfig, name: str | None) -> NME:
    return NME(
        scales=model.scales,
        dim=model.scale_dim,
        weighted=model.scale_weighting,
        trained=model.learnable_scales,
        scale_eps=model.scale_eps,
        locations=model.locations,
        name=name,
    )


def _periodic(model: ModelConfig, name: str | None) -> Periodic:
    return Periodic(
        dim=model.scale_dim,
        initial=model.frequency_init,
        scale=model.frequency_scale,
        trained=model.learnable_frequencies,
        name=name,
    )


SCALAR_ENCODERS: dict[str, Callable[[ModelConfig, str | None], nn.Module]] = {
    "nme": _nme,
    "periodic": _periodic,
    "piecewise": lambda model, name: Piecewise(model.bins, model.scale_dim, name=name),
    "log": lambda model, name: Logarithmic(model.scale_dim, name=name),
    "linear": lambda model, name: LinearScalarEncoder(model.scale_dim, name=name),
}
"""Name -> function of the model options and the module name that returns the module."""

DATA_FITTED_CONSTANTS: dict[str, Callable[[ModelConfig, np.ndarray], Mapping[str, np.ndarray]]] = {
    "piecewise": lambda model, values: {"edges": quantile_edges(values, model.bins)},
}
"""Name -> function of the model options and a sample of training scalars that returns the fitted constants."""

SCOPE = "scalars"


def scalar_encoder_scope(kind: str) -> str:
    """Return the name of a scalar encoder's variables within those of the embedding."""
    return "nme" if kind == "nme" else SCOPE


def build_scalar_encoder(model: ModelConfig) -> nn.Module:
    """Return the scalar encoder of a model; call it within the parent module."""
    return SCALAR_ENCODERS[model.scalar_encoder](model, scalar_encoder_scope(model.scalar_encoder))


def check_scalar_encoder(model: ModelConfig) -> None:
    """Check the options of the scalar encoder.

    Raises:
        InputError: the scalar encoder is not registered, or an option does not fit it.
    """
    if model.scalar_encoder not in SCALAR_ENCODERS:
        known = ", ".join(SCALAR_ENCODERS)
        raise UnknownScalarEncoderError(
            f"model.scalar_encoder is {model.scalar_encoder!r}; choose one of {known}, or register it in "
            "models.scalar_encoders.SCALAR_ENCODERS"
        )
    if model.scalar_encoder == "periodic" and model.scale_dim % 2:
        raise InputError(f"model.scale_dim is {model.scale_dim}, and periodic features come in pairs; choose an even number")
    if model.scalar_encoder == "nme" and model.window_stats != "none" and not model.scales:
        raise InputError("model.scales is empty, and the NME needs at least one scale; choose numbers above 0")


def _uniform(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -1, 1)


def _geometric(base: float, key, shape, dtype=jnp.float32):
    return base ** (jnp.arange(*shape, dtype=dtype) / max(*shape, 1))
