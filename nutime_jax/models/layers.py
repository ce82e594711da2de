"""Layers of the official implementation, with the initialisation and the BatchNorm statistics of PyTorch."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from nutime_jax.config import ModelConfig
from nutime_jax.core.dropout import drop, random_words
from nutime_jax.models.fused_attention import LANES, KernelOptions, fits, fused_attention
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


def at_least_float32(x: Array) -> Any:
    """Return the dtype of statistics, the softmax and losses of an array."""
    return jnp.promote_types(x.dtype, jnp.float32)


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


def multiply_tokens(x: Float[Array, "batch tokens in"], kernel: Float[Array, "in out"]) -> Float[Array, "batch tokens out"]:
    """Return x @ kernel without joining axes: XLA for TPUs chooses the layout of tokens."""
    return jnp.einsum("bti,io->bto", x, kernel)


class Linear(nn.Module):
    """Linear layer with PyTorch's initialisation, which the untrained baseline depends on.

    features: width of the output.
    dtype: dtype of operands and result, see `ModelConfig.dtype`; None is that of input and parameters.
    in_features: width of the input; None is its last axis.
    """

    features: int
    use_bias: bool = True
    dtype: Any = None
    in_features: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch in"], *, matmul: Callable[[Array, Array], Any] = multiply) -> Array | list[Array]:
        """Return matmul(x, kernel) + bias, (*batch, features) by default; without a bias, `matmul` may return several arrays."""
        width = self.in_features or x.shape[-1]
        init = uniform_fan_in(width)
        kernel = self.param("kernel", init, (width, self.features))
        y = matmul(*_cast((x, kernel), self.dtype))
        if not self.use_bias:
            return y
        bias = self.param("bias", init, (self.features,)).reshape((1,) * (y.ndim - 1) + (-1,))
        return y + bias.astype(y.dtype)


def _cast(arrays: Sequence[Array], dtype: Any) -> Sequence[Array]:
    return arrays if dtype is None else [array.astype(dtype) for array in arrays]


class BatchNorm(nn.Module):
    """Batch normalisation over the first axis, with the running statistics of PyTorch.

    The running variance is unbiased (Linen's is biased); `momentum` is the weight of the new value, as in PyTorch. Under
    jit on a sharded batch, the statistics are those of the global batch. Each view has its own statistics; the running ones
    move once per view, in order, as if the views passed one after the other.

    Sum and sum of squares of all views are independent, so devices reduce them together. They are taken around the running
    mean, which keeps the variance accurate where the mean is large.
    """

    momentum: float = 0.1
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "batch *views dim"], *, train: bool) -> Float[Array, "batch *views dim"]:
        batch, dim, x = len(x), x.shape[-1], x.astype(at_least_float32(x))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (dim,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (dim,))
        weight = self.param("scale", nn.initializers.ones, (dim,))
        bias = self.param("bias", nn.initializers.zeros, (dim,))

        def expand(vector: Float[Array, " dim"]) -> Array:
            return vector.reshape((1,) * (x.ndim - 1) + (dim,))

        centred = x - expand(running_mean.value)
        if not train:
            return centred * expand(jax.lax.rsqrt(running_var.value + self.eps) * weight) + expand(bias)
        mean, square = centred.mean(0, keepdims=True), jnp.square(centred).mean(0, keepdims=True)
        var = jnp.maximum(square - jnp.square(mean), 0)
        if not self.is_initializing():
            views = zip(mean.reshape(-1, dim), (var * (batch / max(batch - 1, 1))).reshape(-1, dim), strict=True)
            start, moved, spread = running_mean.value, jnp.zeros_like(running_mean.value), running_var.value
            for view_mean, view_var in views:
                moved += self.momentum * (view_mean - moved)
                spread += self.momentum * (view_var - spread)
            running_mean.value, running_var.value = start + moved, spread
        return (centred - mean) * (jax.lax.rsqrt(var + self.eps) * expand(weight)) + expand(bias)


def gelu(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return the exact GELU, computed with erf as in PyTorch; JAX uses erfc, which takes three times as long on CPU."""
    return x * (0.5 + 0.5 * jax.lax.erf(x / math.sqrt(2)))


class Dropout(nn.Module):
    """Dropout with the masks of `core.dropout.drop`; in training only."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch *rest"], *, train: bool) -> Float[Array, "batch *rest"]:
        return drop(self.make_rng("dropout"), x, rate=self.rate) if train and self.rate > 0 else x

    def words(self, batch: int, *, train: bool) -> UInt32[Array, "2 batch"]:
        """Return the random words of the masks of `__call__`; zeros if it drops nothing."""
        return random_words(self.make_rng("dropout"), batch) if train and self.rate > 0 else jnp.zeros((2, batch), jnp.uint32)


class StochasticDepth(nn.Module):
    """Set the residual branch of a case to zero with probability `rate`, and divide the others by 1 - rate; in training only.

    Source: Huang et al., 2016.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, train: bool) -> Float[Array, "batch tokens width"]:
        if not train or self.rate == 0:
            return x
        return x * drop(self.make_rng("dropout"), jnp.ones((len(x), 1, 1), x.dtype), rate=self.rate)


class Attention(nn.Module):
    """Multi-head self-attention, with dropout of the attention weights and of the output.

    The first `num_output_tokens` tokens (None: all) attend to all tokens. `angles` rotate queries and keys, see
    `positions.rotary_angles`; None applies no rotation. One kernel contains queries, keys and values, as in the official
    implementation; it has no bias.

    platform: "cpu", "gpu" or "tpu"; see `attention_for`.
    dtype: see `Linear`. The softmax is float32.
    kernel_mesh: mesh of the batch for `fused_attention`, which is used where it applies: for all tokens, without rotation, and
        for sizes that it accepts. None uses matmuls.
    """

    num_heads: int
    head_dim: int
    dropout: float
    platform: str = "cpu"
    dtype: Any = None
    kernel_mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        *,
        train: bool,
        num_output_tokens: int | None = None,
        angles: Float[np.ndarray, "tokens pairs"] | None = None,
    ) -> Float[Array, "batch outputs width"]:
        tokens, width = x.shape[1:]
        inner, outputs = self.num_heads * self.head_dim, min(num_output_tokens or tokens, tokens)
        dropout, out = Dropout(self.dropout), Linear(width, dtype=self.dtype, in_features=inner, name="out")
        if self._uses_kernel(x, outputs, angles):
            qkv = Linear(3 * inner, use_bias=False, dtype=self.dtype, name="qkv")(x, matmul=multiply_tokens)
            rate, interpret = self.dropout if train else 0.0, self.platform != "tpu"
            options = KernelOptions(self.head_dim, rate, mesh=self.kernel_mesh, interpret=interpret)
            mixed = fused_attention(qkv, dropout.words(x.shape[0], train=train), options)
            return Dropout(self.dropout)(out(mixed, matmul=multiply_tokens), train=train)
        sizes = {"num_heads": self.num_heads, "head_dim": self.head_dim, "outputs": outputs}
        project, attend, merge = attention_for(self.platform, angles=angles, **sizes)
        q, k, v = Linear(3 * inner, use_bias=False, dtype=self.dtype, name="qkv")(x, matmul=project)

        def drop_weights(weights: Array) -> Array:
            if self.is_mutable_collection("intermediates"):  # see `evaluation.explanations`
                self.sow("intermediates", "weights", weights.reshape(-1, self.num_heads, *weights.shape[-2:]))
            return dropout(weights, train=train)

        mixed = attend(q, k, v, drop_weights)
        return Dropout(self.dropout)(out(mixed, matmul=merge), train=train)

    @nn.nowrap
    def _uses_kernel(self, x: Array, outputs: int, angles: np.ndarray | None) -> bool:
        if self.kernel_mesh is None or angles is not None:
            return False
        batch, tokens, _ = x.shape
        if outputs < tokens or batch % self.kernel_mesh.size:
            return False
        return fits(tokens=tokens, num_heads=self.num_heads, head_dim=self.head_dim)


class AttentionSteps(NamedTuple):
    """Steps of attention for one platform.

    project: (tokens, kernel) -> queries, keys, values. attend: (queries, keys, values, dropout) -> mixed values.
    merge: (mixed values, kernel) -> output, without its bias.
    """

    project: Callable[[Array, Array], list[Array]]
    attend: Callable[[Array, Array, Array, Callable[[Array], Array]], Array]
    merge: Callable[[Array, Array], Array]


def attention_for(platform: str, *, num_heads: int, head_dim: int, outputs: int, angles: np.ndarray | None) -> AttentionSteps:
    """Return the steps that are fast on a platform. Results are equal up to rounding; dropout masks differ.

    - TPU: as many heads as fit share the 128 lanes of a register, and a matmul. An encoder of two blocks takes 7.0 us per
      series of 33 tokens on v5e, forward and backward (compiler estimate); the other form takes 15.6.
    - CPU and GPU, and rotary embeddings: one matmul per series and head. XLA on CPU is slow with inner batch axes.
    """
    if platform != "tpu" or angles is not None:
        return AttentionSteps(
            partial(_project_heads, num_heads=num_heads, head_dim=head_dim, outputs=outputs),
            partial(_attend_heads, angles=angles),
            lambda mixed, kernel: multiply(mixed.transpose(0, 2, 1, 3).reshape(mixed.shape[0], outputs, -1), kernel),
        )
    lanes = math.gcd(num_heads, max(LANES // head_dim, 1)) * head_dim
    return AttentionSteps(
        partial(_project_groups, lanes=lanes, outputs=outputs),
        partial(_attend_groups, head_dim=head_dim),
        lambda mixed, kernel: jnp.einsum("bgql,glw->bqw", mixed, kernel.reshape(mixed.shape[1], lanes, -1)),
    )


def _project_heads(x: Array, kernel: Array, *, num_heads: int, head_dim: int, outputs: int) -> list[Array]:
    """Return queries, keys and values, each (batch, heads, tokens, head_dim)."""
    inner = num_heads * head_dim

    def split(y: Array) -> list[Array]:
        return list(y.reshape(*y.shape[:2], -1, num_heads, head_dim).transpose(2, 0, 3, 1, 4))

    if outputs == x.shape[1]:
        return split(multiply(x, kernel))
    return split(multiply(x[:, :outputs], kernel[:, :inner])) + split(multiply(x, kernel[:, inner:]))


def _attend_heads(q: Array, k: Array, v: Array, dropout: Callable[[Array], Array], *, angles: np.ndarray | None) -> Array:
    """Return mixed values, (batch, heads, outputs, head_dim)."""
    if angles is not None:
        q, k = apply_rotary(q, angles[: q.shape[2]]), apply_rotary(k, angles)
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=at_least_float32(q)) / math.sqrt(q.shape[-1])
    return jnp.einsum("bhqk,bhkd->bhqd", dropout(jax.nn.softmax(scores)).astype(v.dtype), v)


def _project_groups(x: Array, kernel: Array, *, lanes: int, outputs: int) -> list[Array]:
    """Return queries, keys and values of groups of heads, each (batch, groups, tokens, lanes)."""
    queries, keys, values = jnp.moveaxis(kernel.reshape(len(kernel), 3, -1, lanes), 1, 0)
    return [jnp.einsum("btw,wgl->bgtl", y, part) for y, part in ((x[:, :outputs], queries), (x, keys), (x, values))]


def _attend_groups(q: Array, k: Array, v: Array, dropout: Callable[[Array], Array], *, head_dim: int) -> Array:
    """Return mixed values, (batch, groups, outputs, lanes).

    A head reads its own lanes: the others are zero in its queries, and are not taken from its mixed values.
    """
    lanes = q.shape[-1]
    own = (np.arange(lanes) // head_dim == np.arange(lanes // head_dim)[:, None])[None, None, :, None]
    q = jnp.where(own, q[:, :, None], 0)
    scores = jnp.einsum("bghql,bgkl->bghqk", q, k, preferred_element_type=at_least_float32(q)) / math.sqrt(head_dim)
    # Weights in bfloat16 would keep XLA for TPUs from fusing the softmax: 20.2 instead of 16.2 ms per step.
    weights = dropout(jax.nn.softmax(scores))
    mixed = jnp.einsum("bghqk,bgkl->bghql", weights, v.astype(weights.dtype))
    return jnp.where(own, mixed, 0).sum(2).astype(v.dtype)


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them; dropout after each."""

    hidden_dim: int
    dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"], *, train: bool) -> Float[Array, "batch tokens width"]:
        width = x.shape[-1]
        x = gelu(Linear(self.hidden_dim, dtype=self.dtype, name="in")(x))
        x = Dropout(self.dropout)(x, train=train)
        return Dropout(self.dropout)(Linear(width, dtype=self.dtype, name="out")(x), train=train)


class Block(nn.Module):
    """Pre-norm Transformer block that returns the first `num_output_tokens` tokens (None: all); `angles` as in `Attention`.

    platform, dtype, kernel_mesh: see `Attention`.
    skip_rate: rate of stochastic depth.
    """

    config: ModelConfig
    platform: str = "cpu"
    dtype: Any = None
    kernel_mesh: Mesh | None = None
    skip_rate: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        *,
        train: bool,
        num_output_tokens: int | None = None,
        angles: Float[np.ndarray, "tokens pairs"] | None = None,
    ) -> Float[Array, "batch outputs width"]:
        config, target = self.config, {"dtype": self.dtype}
        options = {"platform": self.platform, "kernel_mesh": self.kernel_mesh, **target}
        attention = Attention(config.num_heads, config.head_dim, config.dropout, name="attention", **options)
        residual = x[:, :num_output_tokens]  # before the norm: the order decides how XLA rounds the gradient
        normalised = LayerNorm(name="attention_norm", **target)(x)
        skip = partial(StochasticDepth(self.skip_rate), train=train)
        x = residual + skip(attention(normalised, train=train, num_output_tokens=num_output_tokens, angles=angles))
        mlp = MLP(config.mlp_dim, config.dropout, name="mlp", **target)
        return x + skip(mlp(LayerNorm(name="mlp_norm", **target)(x), train=train))


class ResidualBlock(nn.Module):
    """Residual block of three convolutions over time, applied to tokens (ResNet of Wang et al., 2017).

    Each convolution is followed by a norm, all but the last by a ReLU, and the residual sum by a ReLU. Layer norm of each
    token replaces the original BatchNorm, whose running statistics would differ per microbatch. Dropout is applied to the
    residual branch.

    The first token, in and out, is the mean of the others (`with_mean`) and is not convolved.

    platform, kernel_mesh: not used. dtype: see `Linear`. skip_rate: see `Block`.
    """

    config: ModelConfig
    platform: str = "cpu"
    dtype: Any = None
    kernel_mesh: Mesh | None = None
    skip_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], *, train: bool, num_output_tokens: int | None = None
    ) -> Float[Array, "batch outputs width"]:
        series = x[:, 1:]
        y = series
        for i, kernel in enumerate(KERNELS):
            y = jax.nn.relu(y) if i else y
            convolution = Linear(x.shape[-1], dtype=self.dtype, name=f"convolution_{i}")
            y = LayerNorm(name=f"norm_{i}", dtype=self.dtype)(convolution(neighbours(y, kernel)))
        y = StochasticDepth(self.skip_rate)(Dropout(self.config.dropout)(y, train=train), train=train)
        y = jax.nn.relu(series + y)
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
