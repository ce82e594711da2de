"""Windows as tokens: shape, mean and standard deviation of each, in one vector (paper section 3.2)."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.models.layers import LayerNorm, Linear
from nutime_jax.windows import cut_windows, normalise_windows


class WindowEmbedding(nn.Module):
    """Windows -> tokens: the linear embedding of the shape, merged with that of mean and std (paper section 3.2).

    The attributes are those of `NuTimeEncoder`, but for two. Every size of windows has its own embedding of the shape, as it
    has other points. What follows is shared: a mean is a mean, and has the units of the series, whatever it is taken over; so
    that tokens tell their size, they have a trained vector of it added.

    sizes: (points a window, points from window to window) of each size.
    scalars: makes the module that embeds mean and std.
    """

    width: int
    sizes: Sequence[tuple[int, int]]
    scalars: Callable[[], nn.Module]
    normalisation: str
    statistics: str
    fusion: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch channels time"], offset: Float[Array, "batch channels"] | None
    ) -> Float[Array, "batch windows width"]:
        batch, channels, time = x.shape
        instance = normalise_windows(x, window=time, offset=offset)
        embed_scalars = None if self.statistics == "none" else self.scalars()
        merge, merge_norm = Linear(self.width, name="merge"), LayerNorm(name="merge_norm")
        fusion, fusion_norm = Linear(self.width, name="fusion"), LayerNorm(name="fusion_norm")

        def embed(size: int, stride: int, name: str) -> Float[Array, "batch windows width"]:
            windows = normalise_windows(x, window=size, stride=stride, offset=offset)
            if self.normalisation == "window":
                shape = windows.shape
            else:
                shape = cut_windows(instance.shape.reshape(x.shape), window=size, stride=stride)

            norm = LayerNorm(name=f"shape_norm{name}")
            tokens = norm(Linear(self.width, name=f"shape{name}")(shape))
            if embed_scalars is not None:
                source = windows if self.statistics == "window" else instance
                scalars = jnp.broadcast_to(jnp.stack([source.mean, source.std], -1), (*tokens.shape[:-1], 2))
                embedded = embed_scalars(scalars)
                tokens = jnp.concatenate([tokens, embedded.reshape(*tokens.shape[:-1], -1)], axis=-1)
                tokens = merge_norm(merge(tokens))

            if self.fusion == "sum":  # the release's ablation: one layer norm serves twice
                return norm(tokens.sum(1))
            tokens = jnp.moveaxis(tokens, 1, 2).reshape(batch, -1, channels * self.width)
            return fusion_norm(fusion(tokens)) if channels > 1 else tokens

        tokens = [embed(size, stride, f"_{size}" if place else "") for place, (size, stride) in enumerate(self.sizes)]
        if len(tokens) == 1:
            return tokens[0]
        told = self.param("size", nn.initializers.normal(0.02), (len(tokens), self.width))
        return jnp.concatenate([one + size[None, None] for one, size in zip(tokens, told, strict=True)], axis=1)
