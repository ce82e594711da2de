"""Windows as tokens: shape, mean and standard deviation of each, in one vector (paper section 3.2)."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.models.layers import LayerNorm, Linear
from nutime_jax.windows import normalise_windows


class WindowEmbedding(nn.Module):
    """Windows -> tokens: the linear embedding of the shape, merged with that of mean and std (paper section 3.2).

    The attributes are those of `NuTimeEncoder`, but for one.

    scalars: makes the module that embeds mean and std.
    """

    width: int
    window: int
    scalars: Callable[[], nn.Module]
    normalisation: str
    statistics: str
    fusion: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch channels time"], offset: Float[Array, "batch channels"] | None
    ) -> Float[Array, "batch windows width"]:
        batch, channels, time = x.shape
        windows = normalise_windows(x, window=self.window, offset=offset)
        instance = normalise_windows(x, window=time, offset=offset)
        shape = windows.shape if self.normalisation == "window" else instance.shape.reshape(windows.shape.shape)

        norm = LayerNorm(name="shape_norm")
        tokens = norm(Linear(self.width, name="shape")(shape))
        if self.statistics != "none":
            source = windows if self.statistics == "window" else instance
            scalars = jnp.broadcast_to(jnp.stack([source.mean, source.std], -1), (*tokens.shape[:-1], 2))
            embedded = self.scalars()(scalars)
            tokens = jnp.concatenate([tokens, embedded.reshape(*tokens.shape[:-1], -1)], axis=-1)
            tokens = LayerNorm(name="merge_norm")(Linear(self.width, name="merge")(tokens))

        if self.fusion == "sum":  # the release's ablation: one layer norm serves twice
            return norm(tokens.sum(1))
        tokens = jnp.moveaxis(tokens, 1, 2).reshape(batch, -1, channels * self.width)
        if channels > 1:
            tokens = LayerNorm(name="fusion_norm")(Linear(self.width, name="fusion")(tokens))
        return tokens
