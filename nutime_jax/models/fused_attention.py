"""Attention as one Pallas kernel for TPUs: scores and weights of a group of series stay in VMEM.

A row of 128 lanes has several heads. Their keys and values are written to a block-diagonal matrix, so that one matmul gives the
scores of all heads of a row, one head after the other, and another their mixed values.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, UInt32

from nutime_jax.core.dropout import is_kept

LANES = 128
"""Elements of a row of a TPU's registers and matrix units."""
SERIES = 8
"""Maximum number of series of one program of the kernel."""


class _Sizes(NamedTuple):
    """Static arguments of a kernel: tokens and series of a program, width of all heads and of one, dropout rate."""

    series: int
    tokens: int
    inner: int
    head_dim: int
    rate: float


def fits(*, tokens: int, num_heads: int, head_dim: int) -> bool:
    """Return whether the kernel accepts these sizes: full rows of lanes, and no more tokens than lanes of a head."""
    power_of_two = head_dim & (head_dim - 1) == 0
    return power_of_two and head_dim <= LANES and num_heads * head_dim % LANES == 0 and tokens <= head_dim


class KernelOptions(NamedTuple):
    """Static arguments of the kernel.

    head_dim: width of a head, see `fits`.
    rate: dropout rate of the attention weights.
    mesh: mesh of the batch, whose size divides it. Each device runs the kernel over its own series.
    interpret: whether to run the kernel as JAX operations, on any platform.
    """

    head_dim: int
    rate: float
    mesh: Mesh
    interpret: bool


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def fused_attention(
    qkv: Float[Array, "batch tokens width"], words: UInt32[Array, "2 batch"], options: KernelOptions
) -> Float[Array, "batch tokens inner"]:
    """Return the mixed values of all heads.

    Args:
        qkv: queries, keys and values of all heads; its width is 3 inner.
        words: random words of the dropout of attention weights, see `core.dropout.random_words`.
        options: see `KernelOptions`.
    """
    return _call(_forward_kernel, words, qkv, parts=1, options=options)


def _forward(qkv: Array, words: Array, options: KernelOptions) -> tuple[Array, tuple[Array, Array]]:
    return fused_attention(qkv, words, options), (qkv, words)


def _backward(options: KernelOptions, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    qkv, words = residuals
    return _call(_backward_kernel, words, qkv, gradient, parts=3, options=options), None


fused_attention.defvjp(_forward, _backward)


def _call(kernel: Callable, words: Array, *arrays: Array, parts: int, options: KernelOptions) -> Array:
    """Run a kernel over the series of each device, (batch, tokens, parts * inner)."""

    def run(words: Array, *arrays: Array) -> Array:
        batch, tokens, width = arrays[0].shape
        sizes = _Sizes(math.gcd(batch, SERIES), tokens, width // 3, options.head_dim, options.rate)

        def block(width: int) -> pl.BlockSpec:
            return pl.BlockSpec((sizes.series, tokens, width), lambda i: (i, 0, 0))

        return pl.pallas_call(
            partial(kernel, sizes),
            grid=(batch // sizes.series,),
            in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), *(block(array.shape[-1]) for array in arrays)],
            out_specs=block(parts * sizes.inner),
            out_shape=jax.ShapeDtypeStruct((batch, tokens, parts * sizes.inner), arrays[0].dtype),
            scratch_shapes=[pltpu.VMEM((sizes.series, LANES, LANES), arrays[0].dtype)] * 2,
            interpret=options.interpret,
        )(words, *arrays)

    mesh = options.mesh
    rows, columns = PartitionSpec(mesh.axis_names), PartitionSpec(None, mesh.axis_names)
    sharded = jax.shard_map(run, mesh=mesh, in_specs=(columns, *[rows] * len(arrays)), out_specs=rows, check_vma=False)
    return sharded(words, *arrays)


def _forward_kernel(sizes: _Sizes, words: Any, qkv: Any, out: Any, *stacks: Any) -> None:
    _clear(stacks)
    for first_head, (queries, *others) in _rows(sizes):
        k, v = (_stack(qkv[:, :, part], stack, sizes) for part, stack in zip(others, stacks, strict=True))
        weights = _weights(qkv[:, :, queries], k, sizes) * _dropout_factors(words, first_head, sizes)
        out[:, :, queries] = _matmul("sqk,skl->sql", weights.astype(v.dtype), v).astype(out.dtype)


def _backward_kernel(sizes: _Sizes, words: Any, qkv: Any, gradient: Any, out: Any, *stacks: Any) -> None:
    """Write the gradients of queries, keys and values; the weights are computed again."""
    _clear(stacks)
    for first_head, parts in _rows(sizes):
        q, *others = (qkv[:, :, part] for part in parts)
        k, v = (_stack(array, stack, sizes) for array, stack in zip(others, stacks, strict=True))
        weights, factors = _weights(q, k, sizes), _dropout_factors(words, first_head, sizes)
        mixed_gradient = gradient[:, :, parts[0]]
        weights_gradient = _matmul("sql,skl->sqk", mixed_gradient, v) * factors
        centre = _per_head(weights_gradient * weights, jnp.sum, 0.0, sizes)
        scores_gradient = (weights * (weights_gradient - centre) / math.sqrt(sizes.head_dim)).astype(q.dtype)
        gradients = (
            _matmul("sqk,skl->sql", scores_gradient, k),
            _unstack(_matmul("sqk,sql->skl", scores_gradient, q), sizes),
            _unstack(_matmul("sqk,sql->skl", (weights * factors).astype(v.dtype), mixed_gradient), sizes),
        )
        for part, array in zip(parts, gradients, strict=True):
            out[:, :, part] = array.astype(out.dtype)


def _rows(sizes: _Sizes) -> list[tuple[int, list[Any]]]:
    """Return the first head, and the lanes of queries, keys and values, of each row of 128 lanes."""
    starts = range(0, sizes.inner, LANES)
    return [(start // sizes.head_dim, [pl.ds(part * sizes.inner + start, LANES) for part in range(3)]) for start in starts]


def _clear(stacks: Sequence[Any]) -> None:
    """Set the block-diagonal matrices to zero, once: all series write the same places."""

    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        for stack in stacks:
            stack[...] = jnp.zeros(stack.shape, stack.dtype)


def _stack(array: Array, stack: Any, sizes: _Sizes) -> Array:
    """Return the keys or values of the heads of a row as a block-diagonal matrix, (series, heads * head_dim, 128)."""
    for head in range(LANES // sizes.head_dim):
        own = jnp.where(_own_lanes(array.shape, head, sizes), array, jnp.zeros((), array.dtype))
        stack[:, pl.ds(head * sizes.head_dim, sizes.tokens), :] = own
    return stack[...]


def _unstack(array: Array, sizes: _Sizes) -> Array:
    """Return the diagonal blocks of the gradient of `_stack`, (series, tokens, 128)."""
    starts = range(0, LANES, sizes.head_dim)
    rows = [array[:, start : start + sizes.tokens] for start in starts]
    return _select_heads(rows, sizes)


def _weights(q: Array, k: Array, sizes: _Sizes) -> Array:
    """Return the softmax of the scores of each head, (series, tokens, 128): a head has `head_dim` lanes, the first are its tokens."""
    scores = _matmul("sql,skl->sqk", q, k) / math.sqrt(sizes.head_dim)
    _, key = _head_and_key(scores.shape, sizes)
    scores = jnp.where(key < sizes.tokens, scores, -jnp.inf)
    exponentials = jnp.exp(scores - _per_head(scores, jnp.max, -jnp.inf, sizes))
    return exponentials / _per_head(exponentials, jnp.sum, 0.0, sizes)


def _dropout_factors(words: Any, first_head: int, sizes: _Sizes) -> Array | float:
    """Return 0 for weights that are dropped and 1 / (1 - rate) for others, the masks of `core.dropout.drop`."""
    if not sizes.rate:
        return 1.0
    shape = (1, sizes.tokens, LANES)
    query = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    head, key = _head_and_key(shape, sizes)
    index = (((first_head + head) * sizes.tokens + query) * sizes.tokens + key).astype(jnp.uint32)
    first = pl.program_id(0) * sizes.series
    kept = [is_kept(index, words[0, first + i], words[1, first + i], rate=sizes.rate) for i in range(sizes.series)]
    return jnp.concatenate([jnp.where(one, 1 / (1 - sizes.rate), 0.0) for one in kept])


def _per_head(array: Array, reduce: Callable[..., Array], fill: float, sizes: _Sizes) -> Array:
    """Return a reduction over the lanes of each head, in all of its lanes."""
    values = []
    for head in range(LANES // sizes.head_dim):
        own = jnp.where(_own_lanes(array.shape, head, sizes), array, fill)
        values.append(jnp.broadcast_to(reduce(own, axis=-1, keepdims=True), array.shape))
    return _select_heads(values, sizes)


def _select_heads(arrays: Sequence[Array], sizes: _Sizes) -> Array:
    """Return the lanes of each head from its own array."""
    result = arrays[0]
    for head, array in enumerate(arrays[1:], 1):
        result = jnp.where(_own_lanes(array.shape, head, sizes), array, result)
    return result


def _own_lanes(shape: tuple[int, ...], head: int, sizes: _Sizes) -> Array:
    return _head_and_key(shape, sizes)[0] == head


def _head_and_key(shape: tuple[int, ...], sizes: _Sizes) -> tuple[Array, Array]:
    """Return the head of each lane within its row, and its place in the head; by shifts, as `head_dim` is a power of two."""
    lane = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    return lane >> (sizes.head_dim.bit_length() - 1), lane & (sizes.head_dim - 1)


def _matmul(formula: str, a: Array, b: Array) -> Array:
    """Return an einsum with float32 sums; its axes are series, queries, keys of all heads of a row, and lanes."""
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32)
