"""A convolutional backbone, to compare the Transformer with: the same tokens, and other blocks over them."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.config import ModelConfig
from nutime_jax.models.layers import Dropout, LayerNorm, Linear

KERNELS = (8, 5, 3)
"""Tokens that each convolution of a block sees at a time (Wang et al., 2017)."""


class ResidualBlock(nn.Module):
    """A residual block of three convolutions over time, as in the ResNet of Wang et al. (2017), over tokens.

    Every convolution is normalised and all but the last rectified; the sum with what went in is rectified. A token is
    normalised by itself, by layer norm, where the original has BatchNorm: there are no running statistics, which embedding
    would need and chunks of a batch would each have their own of. Dropout is on what is added.

    The first token in and out is the mean of the others (`with_mean`), and takes no part; `count` as in `layers.Block`.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], *, train: bool, count: int | None = None
    ) -> Float[Array, "batch count width"]:
        series = x[:, 1:]
        y = series
        for place, kernel in enumerate(KERNELS):
            y = jax.nn.relu(y) if place else y
            y = LayerNorm(name=f"norm_{place}")(Linear(x.shape[-1], name=f"convolution_{place}")(neighbours(y, kernel)))
        return with_mean(jax.nn.relu(series + Dropout(self.config.dropout)(y, train=train)))[:, :count]


def neighbours(x: Float[Array, "batch tokens width"], kernel: int) -> Float[Array, "batch tokens {kernel}*width"]:
    """What a kernel sees at each token: the tokens around it, one after the other, zeros beyond the ends.

    A linear layer of it is a convolution, and a matrix product, which is fast everywhere and counted by plans.
    """
    before = (kernel - 1) // 2
    padded = jnp.pad(x, ((0, 0), (before, kernel - 1 - before), (0, 0)))
    return jnp.concatenate([padded[:, place : place + x.shape[1]] for place in range(kernel)], axis=-1)


def with_mean(series: Float[Array, "batch windows width"]) -> Float[Array, "batch tokens width"]:
    """The mean of all tokens, where a Transformer has its CLS token, and the tokens."""
    return jnp.concatenate([series.mean(1, keepdims=True), series], axis=1)
