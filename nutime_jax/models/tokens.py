"""Window tokens: shape, mean and std of each window in one vector (paper section 3.2)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.config import ModelConfig
from nutime_jax.core.windows import cut_windows, dense_windows, first_difference, normalise_windows
from nutime_jax.models.layers import LayerNorm, Linear, gelu
from nutime_jax.models.microbatches import Microbatches, map_microbatches
from nutime_jax.models.scalar_encoders import build_scalar_encoder

CPU_ROWS = 16
"""Series per chunk of dense windows on a CPU, whose cache holds their responses: half the time of a microbatch at once (measured)."""


class DenseShape(nn.Module):
    """Shape embedding of a token from all dense windows that begin in it: Linear, LayerNorm, GELU, average over windows.

    Without the nonlinearity the average would be a linear function of the token's values. ReLU, averaged before the norm, is
    worse: 73.4 and 74.6 % (leave-one-out accuracy, train splits of 63 UCR datasets, one pass, 200 steps of 128 pairs, one seed).
    The responses of the windows are computed again in the backward pass.
    """

    config: ModelConfig
    platform: str = "cpu"

    def setup(self):
        self.kernels, self.norm = Linear(self.config.dense_width or self.config.width), LayerNorm()

    def __call__(self, x: Float[Array, "batch channels time"]) -> Float[Array, "batch channels windows width"]:
        rows = CPU_ROWS if self.platform == "cpu" else len(x)
        return map_microbatches(DenseShape._embed, self, x, microbatches=Microbatches(rows))

    def _embed(self, x: Float[Array, "batch channels time"]) -> Float[Array, "batch channels windows width"]:
        config = self.config
        dense = dense_windows(x, window=config.window_size, stride=config.window_stride, dense_stride=config.dense_stride)
        responses = gelu(self.norm(self.kernels(dense.normalised)))
        weights = jnp.asarray(dense.valid / dense.valid.sum(1, keepdims=True), responses.dtype)
        return jnp.einsum("bctpw,tp->bctw", responses, weights)


class WindowEmbedding(nn.Module):
    """Linear embedding of the window shape, merged with the embeddings of mean and std (paper section 3.2).

    Each window size has its own shape embedding; all other weights are shared. With several sizes, a learnable vector per
    size is added to its tokens.
    """

    config: ModelConfig
    platform: str = "cpu"

    @nn.nowrap
    def shape_kernels(self) -> Float[Array, "window count"]:
        """Return the kernels of the shape embedding, of the main window size."""
        params = self.variables["params"]
        return (params["dense"]["kernels"] if self.config.dense_stride else params["shape"])["kernel"]

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch channels time"], offset: Float[Array, "batch channels"] | None
    ) -> Float[Array, "batch windows width"]:
        config, (batch, channels, time) = self.config, x.shape
        instance = normalise_windows(x, window=time, offset=offset)
        embed_scalars = None if config.window_stats == "none" else build_scalar_encoder(config)
        merge, merge_norm = Linear(config.width, name="merge"), LayerNorm(name="merge_norm")
        fusion, fusion_norm = Linear(config.width, name="fusion"), LayerNorm(name="fusion_norm")

        def embed_dense(x: Float[Array, "batch channels time"]) -> Float[Array, "batch channels windows features"]:
            tokens = DenseShape(config, self.platform, name="dense")(x)
            if not config.dense_differences:
                return tokens
            return jnp.concatenate([tokens, DenseShape(config, self.platform, name="dense_differences")(first_difference(x))], axis=-1)

        def embed(size: int, stride: int, name: str) -> Float[Array, "batch windows width"]:
            windows = normalise_windows(x, window=size, stride=stride, offset=offset)
            norm = LayerNorm(name=f"shape_norm{name}")
            if config.dense_stride:
                tokens = embed_dense(x)
            elif config.normalisation == "window":
                tokens = norm(Linear(config.width, name=f"shape{name}")(windows.normalised))
            else:
                shape = cut_windows(instance.normalised.reshape(x.shape), window=size, stride=stride)
                tokens = norm(Linear(config.width, name=f"shape{name}")(shape))
            if embed_scalars is not None:
                source = windows if config.window_stats == "window" else instance
                scalars = jnp.broadcast_to(jnp.stack([source.mean, source.std], -1), (*tokens.shape[:-1], 2))
                embedded = embed_scalars(scalars)
                tokens = jnp.concatenate([tokens, embedded.reshape(*tokens.shape[:-1], -1)], axis=-1)
            if tokens.shape[-1] != config.width or embed_scalars is not None:
                tokens = merge_norm(merge(tokens))

            if config.channel_fusion == "sum":  # ablation of the official implementation: one layer norm is used twice
                return norm(tokens.sum(1))
            tokens = jnp.moveaxis(tokens, 1, 2).reshape(batch, -1, channels * config.width)
            return fusion_norm(fusion(tokens)) if channels > 1 else tokens

        tokens = [embed(size, stride, f"_{size}" if i else "") for i, (size, stride) in enumerate(config.window_specs)]
        if len(tokens) == 1:
            return tokens[0]
        vectors = self.param("size", nn.initializers.normal(0.02), (len(tokens), config.width))
        return jnp.concatenate([part + vector[None, None] for part, vector in zip(tokens, vectors, strict=True)], axis=1)
