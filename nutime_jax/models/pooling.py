"""Pooling of tokens to features, and the outputs of an encoder as hashable values (static arguments of jit)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nutime_jax.config import POOLINGS
from nutime_jax.errors import InputError
from nutime_jax.models.network import Encoding

ALL_LAYERS = ("all_layers", "all_layers+stem")
"""Poolings that exclude a layer."""


def pool_tokens(encoding: Encoding, *, layer: int | None = None, pooling: str = "cls+mean") -> Float[Array, "batch features"]:
    """Return the features of series.

    Args:
        encoding: tokens of all layers.
        layer: 0 (before the first block) to depth (after the last block); None is the last layer after the final norm.
        pooling: "cls" (CLS token), "mean" (mean of the window tokens), "cls+mean" (both, concatenated), "all_layers"
            (mean of layer 0, whose CLS token is constant, and "cls+mean" of layers 1 to depth, concatenated), or
            "all_layers+stem" (followed by the pooled stem features, see `stem`; of several difference orders or input
            lengths, `Encoder.embed` adds them to the first only).

    Returns:
        (batch, features): width for "cls" and "mean", 2 width for "cls+mean", (2 depth + 1) width for "all_layers".

    Raises:
        InputError: the layer or the pooling does not exist.
    """
    check_pooling(len(encoding.layers) - 1, layer=layer, pooling=pooling)
    if pooling in ALL_LAYERS:
        layers = [pool_tokens(encoding, layer=number, pooling="cls+mean" if number else "mean") for number in range(len(encoding.layers))]
        return jnp.concatenate(layers + [encoding.stem] * (pooling == "all_layers+stem"), axis=-1)
    tokens = encoding.normalised if layer is None else encoding.layers[layer]
    parts = {"cls": [tokens[:, 0]], "mean": [tokens[:, 1:].mean(1)]}
    parts["cls+mean"] = parts["cls"] + parts["mean"]
    return jnp.concatenate(parts[pooling], axis=-1)


def required_output_tokens(pooling: str) -> int | None:
    """Return the number of tokens of the last block that a pooling needs (`num_output_tokens` of `NuTimeEncoder`)."""
    return 1 if pooling == "cls" else None


def check_pooling(depth: int, *, layer: object, pooling: object) -> None:
    """Check layer and pooling for an encoder of `depth` blocks.

    Raises:
        InputError: the layer or the pooling does not exist, or they exclude each other.
    """
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        raise InputError(f"pooling {pooling!r} is unknown; choose one of {', '.join(POOLINGS)}")
    integer = isinstance(layer, (int, np.integer)) and not isinstance(layer, bool)
    if layer is not None and not (integer and 0 <= layer <= depth):
        raise InputError(f"layer {layer!r} does not exist; choose 0 to {depth}, or none for the normalised last layer")
    if pooling in ALL_LAYERS and layer is not None:
        raise InputError(f"pooling {pooling!r} excludes layer (layer is {layer}); set only one of them")


@dataclasses.dataclass(frozen=True)
class TokenOutput:
    """Window tokens of a layer, (batch, windows, width)."""

    layer: int | None
    num_output_tokens = None

    def __call__(self, encoding: Encoding) -> jax.Array:
        return (encoding.normalised if self.layer is None else encoding.layers[self.layer])[:, 1:]


@dataclasses.dataclass(frozen=True)
class PooledOutput:
    """One feature vector per series, (batch, features), see `pool_tokens`."""

    layer: int | None
    pooling: str

    @property
    def num_output_tokens(self) -> int | None:
        return required_output_tokens(self.pooling)

    def __call__(self, encoding: Encoding) -> jax.Array:
        return pool_tokens(encoding, layer=self.layer, pooling=self.pooling)


@dataclasses.dataclass(frozen=True)
class LayerwiseOutput:
    """CLS token and mean window token of every layer, (layers, 2, width) in one axis, then the pooled stem features."""

    num_output_tokens = None

    def __call__(self, encoding: Encoding) -> jax.Array:
        layers = (*encoding.layers, encoding.normalised)
        tokens = [part for layer in layers for part in (layer[:, 0], layer[:, 1:].mean(1))]
        return jnp.concatenate([*tokens, encoding.stem], axis=-1)


def without_stem(output: "Output") -> "Output":
    """Return the output for all difference orders and input lengths but the first, whose stem features suffice.

    Those of the first difference as well lose 1.3 percentage points (leave-one-out accuracy, train splits of 63 UCR datasets).
    """
    if isinstance(output, PooledOutput) and output.pooling == "all_layers+stem":
        return dataclasses.replace(output, pooling="all_layers")
    return output


Output = TokenOutput | PooledOutput | LayerwiseOutput


def split_layers(features: np.ndarray, *, depth: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of `LayerwiseOutput`: tokens and pooled stem features.

    Args:
        features: (..., features).

    Returns:
        tokens: (..., depth + 2, 2, width): layers 0 to depth, then the normalised last layer; CLS before mean.
        stem: (..., features).
    """
    size = (depth + 2) * 2 * width
    return features[..., :size].reshape(*features.shape[:-1], depth + 2, 2, width), features[..., size:]
