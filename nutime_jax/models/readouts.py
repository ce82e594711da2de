"""What is read of an encoding, as values that compiled programs are told apart by."""

import dataclasses

import jax
import jax.numpy as jnp

from nutime_jax.models.encoder import Encoding, last_tokens, read_out


@dataclasses.dataclass(frozen=True)
class ReadTokens:
    """The window tokens of a layer, (batch, windows, width)."""

    layer: int | None
    last = None

    def __call__(self, encoding: Encoding) -> jax.Array:
        return (encoding.normalised if self.layer is None else encoding.layers[self.layer])[:, 1:]


@dataclasses.dataclass(frozen=True)
class ReadVector:
    """One vector a series, see `models.encoder.read_out`."""

    layer: int | None
    readout: str

    @property
    def last(self) -> int | None:
        """How many tokens the last block need give, CLS first; None is all."""
        return last_tokens(self.readout)

    def __call__(self, encoding: Encoding) -> jax.Array:
        return read_out(encoding, layer=self.layer, readout=self.readout)


@dataclasses.dataclass(frozen=True)
class ReadLayers:
    """CLS token and mean window token of every layer, (batch, layers, 2, width)."""

    last = None

    def __call__(self, encoding: Encoding) -> jax.Array:
        layers = jnp.stack([*encoding.layers, encoding.normalised], axis=1)  # (batch, layers, tokens, width)
        return jnp.stack([layers[:, :, 0], layers[:, :, 1:].mean(2)], axis=2)


Read = ReadTokens | ReadVector | ReadLayers
