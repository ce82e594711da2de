"""Layers of the release, with PyTorch's initialisation and PyTorch's statistics."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

LayerNorm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)
"""Two-pass variance: the fast form is off by thousands at an offset of 1e6."""


def uniform_fan_in(fan_in: int):
    """PyTorch's default for the weights *and biases* of a linear layer: U(-1, 1) / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """Linear layer, initialised as PyTorch does (Flax's defaults differ, and move the untrained twin)."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        init = uniform_fan_in(x.shape[-1])
        y = x @ self.param("kernel", init, (x.shape[-1], self.features))
        if self.use_bias:
            y = y + self.param("bias", init, (self.features,)).reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class BatchNorm(nn.Module):
    """Batch normalisation over the first axis; running statistics as PyTorch keeps them.

    The running variance is the unbiased one (Linen's is not), momentum 0.1 in PyTorch's sense. Under jit on a sharded
    batch the statistics are those of the *global* batch.
    """

    momentum: float = 0.1
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "batch dim"], *, train: bool) -> Float[Array, "batch dim"]:
        batch, dim = x.shape
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (dim,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (dim,))
        weight = self.param("scale", nn.initializers.ones, (dim,))
        bias = self.param("bias", nn.initializers.zeros, (dim,))
        if train:
            mean = x.mean(0)
            var = jnp.square(x - mean[None]).mean(0)
            if not self.is_initializing():
                unbiased = var * (batch / max(batch - 1, 1))
                running_mean.value += self.momentum * (mean - running_mean.value)
                running_var.value += self.momentum * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        return (x - mean[None]) * (jax.lax.rsqrt(var + self.eps) * weight)[None] + bias[None]


class Attention(nn.Module):
    """Multi-head self-attention; dropout on the attention weights and on the output."""

    heads: int
    head_dim: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, train: bool) -> Float[Array, "batch tokens width"]:
        batch, tokens, width = x.shape
        qkv = Linear(3 * self.heads * self.head_dim, use_bias=False, name="qkv")(x)
        # Heads beside the batch *before* the products: XLA's CPU backend falls to a slow path for batch axes inside.
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, self.head_dim).transpose(2, 0, 3, 1, 4)
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(self.head_dim)
        weights = nn.Dropout(self.dropout, deterministic=not train)(jax.nn.softmax(scores))
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v).transpose(0, 2, 1, 3).reshape(batch, tokens, -1)
        return nn.Dropout(self.dropout, deterministic=not train)(Linear(width, name="out")(mixed))


class MLP(nn.Module):
    """Two linear layers around an exact GELU, dropout after each."""

    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, train: bool) -> Float[Array, "batch tokens width"]:
        width = x.shape[-1]
        x = jax.nn.gelu(Linear(self.hidden, name="in")(x), approximate=False)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dropout(self.dropout, deterministic=not train)(Linear(width, name="out")(x))


class Block(nn.Module):
    """Pre-norm Transformer block."""

    heads: int
    head_dim: int
    mlp_dim: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, train: bool) -> Float[Array, "batch tokens width"]:
        attention = Attention(self.heads, self.head_dim, self.dropout, name="attention")
        x = x + attention(LayerNorm(name="attention_norm")(x), train=train)
        mlp = MLP(self.mlp_dim, self.dropout, name="mlp")
        return x + mlp(LayerNorm(name="mlp_norm")(x), train=train)
