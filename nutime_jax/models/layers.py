"""Layers of the release, with PyTorch's initialisation and PyTorch's statistics."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.config import ModelConfig
from nutime_jax.core.dropout import drop
from nutime_jax.models.positions import rotate

LayerNorm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)
"""Two-pass variance: the fast form is off by thousands at an offset of 1e6."""


def uniform_fan_in(fan_in: int):
    """PyTorch's default for the weights *and biases* of a linear layer: U(-1, 1) / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@jax.custom_vjp
def multiply(x: Float[Array, "*batch in"], kernel: Float[Array, "in out"]) -> Float[Array, "*batch out"]:
    """x @ kernel, whose gradient by the kernel is one product that turns the narrower of its two factors.

    Left to itself, XLA on CPUs turns the wider one: of an attention of 8 x 64 that copy costs as much as the product.
    """
    return x @ kernel


def _multiply_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _multiply_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    rows, out = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    by_kernel = rows.T @ out if rows.shape[1] <= out.shape[1] else (out.T @ rows).T
    return gradient @ kernel.T, by_kernel


multiply.defvjp(_multiply_forward, _multiply_backward)


class Linear(nn.Module):
    """Linear layer, initialised as PyTorch does (Flax's defaults differ, and move the untrained twin)."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        init = uniform_fan_in(x.shape[-1])
        y = multiply(x, self.param("kernel", init, (x.shape[-1], self.features)))
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


def gelu(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Exact GELU by erf, as PyTorch computes it; JAX's own, by erfc, takes three times as long on a CPU."""
    return x * (0.5 + 0.5 * jax.lax.erf(x / math.sqrt(2)))


class Dropout(nn.Module):
    """Dropout with masks of `dropout.drop`; in training only."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch *rest"], *, train: bool) -> Float[Array, "batch *rest"]:
        return drop(self.make_rng("dropout"), x, rate=self.rate) if train and self.rate > 0 else x


class QKV(nn.Module):
    """Queries, of the first `count` tokens (None is all), and keys and values, (batch, heads, tokens, head_dim) each.

    One kernel holds all three, as in the release; there is no bias.
    """

    num_heads: int
    head_dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, count: int | None) -> list[Float[Array, "batch heads _ head_dim"]]:
        width, inner = x.shape[-1], self.num_heads * self.head_dim
        kernel = self.param("kernel", uniform_fan_in(width), (width, 3 * inner))
        if count is None:
            return self._split(multiply(x, kernel))
        return self._split(multiply(x[:, :count], kernel[:, :inner])) + self._split(multiply(x, kernel[:, inner:]))

    def _split(self, x: Float[Array, "batch tokens inner"]) -> list[Float[Array, "batch heads tokens head_dim"]]:
        # Heads beside the batch *before* attention's products: XLA's CPU backend falls to a slow path for batch axes inside.
        return list(x.reshape(*x.shape[:2], -1, self.num_heads, self.head_dim).transpose(2, 0, 3, 1, 4))


class Attention(nn.Module):
    """Multi-head self-attention; dropout on the attention weights and on the output.

    All tokens are looked at, from the first `count` of them (None is all). `angles` are those by which queries and keys are
    turned, see `positions.rotary_angles`; None is not at all.
    """

    num_heads: int
    head_dim: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        *,
        train: bool,
        count: int | None = None,
        angles: Float[np.ndarray, "tokens pairs"] | None = None,
    ) -> Float[Array, "batch count width"]:
        batch, _, width = x.shape
        q, k, v = QKV(self.num_heads, self.head_dim, name="qkv")(x, count=count)
        if angles is not None:
            q, k = rotate(q, angles[:count]), rotate(k, angles)
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(self.head_dim)
        weights = Dropout(self.dropout)(jax.nn.softmax(scores), train=train)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v).transpose(0, 2, 1, 3).reshape(batch, -1, self.num_heads * self.head_dim)
        return Dropout(self.dropout)(Linear(width, name="out")(mixed), train=train)


class MLP(nn.Module):
    """Two linear layers around an exact GELU, dropout after each."""

    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, train: bool) -> Float[Array, "batch tokens width"]:
        width = x.shape[-1]
        x = gelu(Linear(self.hidden, name="in")(x))
        x = Dropout(self.dropout)(x, train=train)
        return Dropout(self.dropout)(Linear(width, name="out")(x), train=train)


class Block(nn.Module):
    """Pre-norm Transformer block: the first `count` tokens of what comes out (None is all); `angles` as in `Attention`."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        *,
        train: bool,
        count: int | None = None,
        angles: Float[np.ndarray, "tokens pairs"] | None = None,
    ) -> Float[Array, "batch count width"]:
        config = self.config
        attention = Attention(config.num_heads, config.head_dim, config.dropout, name="attention")
        x = x[:, :count] + attention(LayerNorm(name="attention_norm")(x), train=train, count=count, angles=angles)
        mlp = MLP(config.mlp_dim, config.dropout, name="mlp")
        return x + mlp(LayerNorm(name="mlp_norm")(x), train=train)
