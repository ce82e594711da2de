"""Ways to take the gradient of a step in less memory; each stands in for `jax.value_and_grad` in `train.step`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nutime_jax.errors import InputError

LossFn = Callable[[Any, Any, Any], tuple[jax.Array, Any]]
"""(params, views, keys) -> (loss, auxiliary values)."""
GradientFn = Callable[[Any, Any, Any], tuple[tuple[jax.Array, Any], Any]]
"""(params, views, keys) -> ((loss, auxiliary values), gradient)."""
Differentiate = Callable[[LossFn], GradientFn]

POLICIES = {
    "none": None,
    # What matrix products of weights give is kept; attention, dropout, norms and activations are computed again.
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Nothing between the blocks is kept but what the compiler chooses to.
    "everything": jax.checkpoint_policies.nothing_saveable,
}


def plain(loss_fn: LossFn) -> GradientFn:
    """Backpropagation as it is: every activation is kept."""
    return jax.value_and_grad(loss_fn, has_aux=True)


def rematerialised(differentiate: Differentiate, *, policy: str) -> Differentiate:
    """Activations are computed again on the way back; the numbers, BatchNorm's included, are the same up to rounding.

    Args:
        policy: what is computed again, see POLICIES.

    Raises:
        InputError: an unknown policy.
    """
    if policy not in POLICIES:
        raise InputError(f"remat is {policy!r}; choose one of {', '.join(POLICIES)}")
    if policy == "none":
        return differentiate
    return lambda loss_fn: differentiate(jax.checkpoint(loss_fn, policy=POLICIES[policy]))


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
