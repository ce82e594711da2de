"""What is read of an encoding: features of series, and the same as values that compiled programs are told apart by."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nutime_jax.errors import InputError
from nutime_jax.models.network import Encoding

POOLINGS = ("cls", "mean", "cls+mean", "all_layers")


def pool_tokens(encoding: Encoding, *, layer: int | None = None, pooling: str = "cls+mean") -> Float[Array, "batch features"]:
    """Features of a series from its tokens.

    Args:
        layer: 0 (tokens before the first block) to depth (after the last block); None is the last after the final norm.
        pooling: "cls" (the CLS token), "mean" (the mean of the window tokens), "cls+mean" (both, concatenated), or "all_layers"
            ("cls+mean" of every layer, from before the first block on, concatenated).

    Raises:
        InputError: no such layer or pooling.
    """
    check_pooling(len(encoding.layers) - 1, layer=layer, pooling=pooling)
    if pooling == "all_layers":
        return jnp.concatenate([pool_tokens(encoding, layer=number) for number in range(len(encoding.layers))], axis=-1)
    tokens = encoding.normalised if layer is None else encoding.layers[layer]
    parts = {"cls": [tokens[:, 0]], "mean": [tokens[:, 1:].mean(1)]}
    parts["cls+mean"] = parts["cls"] + parts["mean"]
    return jnp.concatenate(parts[pooling], axis=-1)


def last_tokens(pooling: str) -> int | None:
    """How many tokens of the last block a pooling needs, CLS first (`last` of `NuTimeEncoder`); None is all."""
    return 1 if pooling == "cls" else None


def check_pooling(depth: int, *, layer: object, pooling: object) -> None:
    """Raises InputError unless an encoder of so many blocks has such a layer, and there is such a pooling."""
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        raise InputError(f"pooling {pooling!r} is unknown; choose one of {', '.join(POOLINGS)}")
    whole = layer is None or (isinstance(layer, (int, np.integer)) and not isinstance(layer, bool))
    if not whole or (layer is not None and not 0 <= layer <= depth):
        raise InputError(f"layer {layer!r} does not exist; choose 0 to {depth}, or none for the normalised last layer")
    if pooling == "all_layers" and layer is not None:
        raise InputError(f"pooling 'all_layers' reads every layer, and layer is {layer}; leave one of them out")


@dataclasses.dataclass(frozen=True)
class ReadTokens:
    """The window tokens of a layer, (batch, windows, width)."""

    layer: int | None
    last = None

    def __call__(self, encoding: Encoding) -> jax.Array:
        return (encoding.normalised if self.layer is None else encoding.layers[self.layer])[:, 1:]


@dataclasses.dataclass(frozen=True)
class ReadVector:
    """One vector a series, see `pool_tokens`."""

    layer: int | None
    pooling: str

    @property
    def last(self) -> int | None:
        """How many tokens the last block need give, CLS first; None is all."""
        return last_tokens(self.pooling)

    def __call__(self, encoding: Encoding) -> jax.Array:
        return pool_tokens(encoding, layer=self.layer, pooling=self.pooling)


@dataclasses.dataclass(frozen=True)
class ReadLayers:
    """CLS token and mean window token of every layer, (batch, layers, 2, width)."""

    last = None

    def __call__(self, encoding: Encoding) -> jax.Array:
        layers = jnp.stack([*encoding.layers, encoding.normalised], axis=1)  # (batch, layers, tokens, width)
        return jnp.stack([layers[:, :, 0], layers[:, :, 1:].mean(2)], axis=2)


Read = ReadTokens | ReadVector | ReadLayers
