"""Layers of the official implementation, with the initialisation and the BatchNorm statistics of PyTorch."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.config import ModelConfig
from nutime_jax.core.dropout import drop
from nutime_jax.models.positions import apply_rotary

LayerNorm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)
"""Layer norm with two-pass variance: at an offset of 1e6, the fast variance is wrong by thousands."""
KERNELS = (8, 5, 3)
"""Kernel sizes of the convolutions of a residual block, in tokens (Wang et al., 2017)."""


def uniform_fan_in(fan_in: int):
    """Return PyTorch's default initialiser of weights and biases of a linear layer: U(-1, 1) / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@jax.custom_vjp
def multiply(x: Float[Array, "*batch in"], kernel: Float[Array, "in out"]) -> Float[Array, "*batch out"]:
    """Return x @ kernel; in the gradient of the kernel, the narrower factor of the matmul is transposed.

    By default XLA transposes the wider one on CPU. For an attention of 8 x 64 that copy costs as much as the matmul.
    """
    return x @ kernel


def _multiply_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _multiply_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    rows, out = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    kernel_gradient = rows.T @ out if rows.shape[1] <= out.shape[1] else (out.T @ rows).T
    return gradient @ kernel.T, kernel_gradient


multiply.defvjp(_multiply_forward, _multiply_backward)


class Linear(nn.Module):
    """Linear layer with PyTorch's initialisation, which the untrained baseline depends on."""

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
    """Batch normalisation over the first axis, with the running statistics of PyTorch.

    The running variance is unbiased (Linen's is biased); `momentum` is the weight of the new value, as in PyTorch. Under
    jit on a sharded batch, the statistics are those of the global batch.
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
    """Return the exact GELU, computed with erf as in PyTorch; JAX uses erfc, which takes three times as long on CPU."""
    return x * (0.5 + 0.5 * jax.lax.erf(x / math.sqrt(2)))


class Dropout(nn.Module):
    """Dropout with the masks of `core.dropout.drop`; in training only."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch *rest"], *, train: bool) -> Float[Array, "batch *rest"]:
        return drop(self.make_rng("dropout"), x, rate=self.rate) if train and self.rate > 0 else x


class QKV(nn.Module):
    """Queries, keys and values, each (batch, heads, tokens, head_dim); queries of the first `num_output_tokens` tokens (None: all).

    One kernel contains all three, as in the official implementation; there is no bias.
    """

    num_heads: int
    head_dim: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], *, num_output_tokens: int | None
    ) -> list[Float[Array, "batch heads _ head_dim"]]:
        width, inner = x.shape[-1], self.num_heads * self.head_dim
        kernel = self.param("kernel", uniform_fan_in(width), (width, 3 * inner))
        if num_output_tokens is None:
            return self._split(multiply(x, kernel))
        queries = self._split(multiply(x[:, :num_output_tokens], kernel[:, :inner]))
        return queries + self._split(multiply(x, kernel[:, inner:]))

    def _split(self, x: Float[Array, "batch tokens inner"]) -> list[Float[Array, "batch heads tokens head_dim"]]:
        # Heads next to the batch before the matmuls of attention: XLA on CPU is slow with inner batch axes.
        return list(x.reshape(*x.shape[:2], -1, self.num_heads, self.head_dim).transpose(2, 0, 3, 1, 4))


class Attention(nn.Module):
    """Multi-head self-attention, with dropout of the attention weights and of the output.

    The first `num_output_tokens` tokens (None: all) attend to all tokens. `angles` apply_rotary queries and keys, see
    `positions.rotary_angles`; None applies no rotation.
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
        num_output_tokens: int | None = None,
        angles: Float[np.ndarray, "tokens pairs"] | None = None,
    ) -> Float[Array, "batch outputs width"]:
        batch, _, width = x.shape
        q, k, v = QKV(self.num_heads, self.head_dim, name="qkv")(x, num_output_tokens=num_output_tokens)
        if angles is not None:
            q, k = apply_rotary(q, angles[:num_output_tokens]), apply_rotary(k, angles)
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(self.head_dim)
        weights = Dropout(self.dropout)(jax.nn.softmax(scores), train=train)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v).transpose(0, 2, 1, 3).reshape(batch, -1, self.num_heads * self.head_dim)
        return Dropout(self.dropout)(Linear(width, name="out")(mixed), train=train)


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them; dropout after each."""

    hidden_dim: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, train: bool) -> Float[Array, "batch tokens width"]:
        width = x.shape[-1]
        x = gelu(Linear(self.hidden_dim, name="in")(x))
        x = Dropout(self.dropout)(x, train=train)
        return Dropout(self.dropout)(Linear(width, name="out")(x), train=train)


class Block(nn.Module):
    """Pre-norm Transformer block that returns the first `num_output_tokens` tokens (None: all); `angles` as in `Attention`."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        *,
        train: bool,
        num_output_tokens: int | None = None,
        angles: Float[np.ndarray, "tokens pairs"] | None = None,
    ) -> Float[Array, "batch outputs width"]:
        config = self.config
        attention = Attention(config.num_heads, config.head_dim, config.dropout, name="attention")
        residual = x[:, :num_output_tokens]  # before the norm: the order decides how XLA rounds the gradient
        normalised = LayerNorm(name="attention_norm")(x)
        x = residual + attention(normalised, train=train, num_output_tokens=num_output_tokens, angles=angles)
        mlp = MLP(config.mlp_dim, config.dropout, name="mlp")
        return x + mlp(LayerNorm(name="mlp_norm")(x), train=train)


class ResidualBlock(nn.Module):
    """Residual block of three convolutions over time, applied to tokens (ResNet of Wang et al., 2017).

    Each convolution is followed by a norm, all but the last by a ReLU, and the residual sum by a ReLU. Layer norm of each
    token replaces the original BatchNorm, whose running statistics would differ per microbatch. Dropout is applied to the
    residual branch.

    The first token, in and out, is the mean of the others (`with_mean`) and is not convolved.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], *, train: bool, num_output_tokens: int | None = None
    ) -> Float[Array, "batch outputs width"]:
        series = x[:, 1:]
        y = series
        for i, kernel in enumerate(KERNELS):
            y = jax.nn.relu(y) if i else y
            y = LayerNorm(name=f"norm_{i}")(Linear(x.shape[-1], name=f"convolution_{i}")(neighbours(y, kernel)))
        y = jax.nn.relu(series + Dropout(self.config.dropout)(y, train=train))
        return with_mean(y)[:, :num_output_tokens]


def neighbours(x: Float[Array, "batch tokens width"], kernel: int) -> Float[Array, "batch tokens {kernel}*width"]:
    """Concatenate the `kernel` tokens around each token, with zero padding.

    A linear layer of the result is a convolution, computed as a matmul: fast on all platforms, and counted by `plan`.
    """
    before = (kernel - 1) // 2
    padded = jnp.pad(x, ((0, 0), (before, kernel - 1 - before), (0, 0)))
    return jnp.concatenate([padded[:, start : start + x.shape[1]] for start in range(kernel)], axis=-1)


def with_mean(series: Float[Array, "batch windows width"]) -> Float[Array, "batch tokens width"]:
    """Return the mean of all tokens, in the position of CLS, and the tokens."""
    return jnp.concatenate([series.mean(1, keepdims=True), series], axis=1)
