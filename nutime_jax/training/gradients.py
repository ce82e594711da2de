"""Ways to take the gradient of a step; each stands in for `jax.value_and_grad` in `train.step`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LossFn = Callable[[Any, Any, Any], tuple[jax.Array, Any]]
"""(params, views, keys) -> (loss, auxiliary values)."""
GradientFn = Callable[[Any, Any, Any], tuple[tuple[jax.Array, Any], Any]]
"""(params, views, keys) -> ((loss, auxiliary values), gradient)."""
Differentiate = Callable[[LossFn], GradientFn]


def plain(loss_fn: LossFn) -> GradientFn:
    """Backpropagation over the whole batch at once."""
    return jax.value_and_grad(loss_fn, has_aux=True)


def accumulated(differentiate: Differentiate, *, count: int) -> Differentiate:
    """The batch goes through in `count` parts of equal size, one after the other; what they give is averaged.

    BatchNorm normalises each part by the statistics of that part alone (batch_size / count series), and its running
    statistics move once a step, by the mean over the parts: a step in parts is *not* a step on the whole batch. Part i
    takes every count-th row, so that every device has its share of each, and no row moves.
    """
    if count == 1:
        return differentiate

    def in_parts(loss_fn: LossFn) -> GradientFn:
        compute = differentiate(loss_fn)

        def over_parts(params, views, keys):
            parts = (jax.tree.map(lambda leaf: _deal(leaf, count), views), jax.tree.map(lambda key: jax.random.split(key, count), keys))
            shapes = jax.eval_shape(compute, params, *jax.tree.map(lambda leaf: leaf[0], parts))
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, compute(params, *part)), None), zeros, parts)
            return jax.tree.map(lambda leaf: leaf / count, total)

        return over_parts

    return in_parts


def _deal(leaf: jax.Array, count: int) -> jax.Array:
    """(batch, ...) -> (count, batch / count, ...), row i to part i % count."""
    return jnp.moveaxis(leaf.reshape(-1, count, *leaf.shape[1:]), 1, 0)
