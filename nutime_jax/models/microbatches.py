"""Functions of a Flax module, computed in microbatches of rows to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

COLLECTIONS = ("params", "constants")
"""Collections of the variables of an encoder."""


def map_microbatches(fn: Callable[..., Any], module: nn.Module, *arrays: Any, microbatch_size: int | None) -> Any:
    """Return fn(module, *arrays), computed in microbatches that are rematerialised in the backward pass.

    The backward pass saves only the inputs of a microbatch. Row i is in microbatch i % count: each device has rows of every
    microbatch, and no row moves between devices.

    Args:
        fn: function of a module and arrays (batch, …) that returns arrays (batch, …); rows are independent.
        module: Flax module, passed to `fn`.
        arrays: trees of arrays (batch, …), or None.
        microbatch_size: minimum number of rows of a microbatch. All have equal size, so a batch of a prime number of rows
            is one microbatch. None is the full batch.
    """
    count = 1 if microbatch_size is None else _num_microbatches(len(arrays[0]), microbatch_size)
    if count == 1:
        return fn(module, *arrays)

    def body(module: nn.Module, carry: tuple, microbatch: tuple) -> tuple[tuple, Any]:
        return carry, fn(module, *microbatch)

    body = nn.remat(body, prevent_cse=False)
    scan = nn.scan(body, variable_broadcast=COLLECTIONS, split_rngs={"params": False, "dropout": True})
    _, outputs = scan(module, (), _split(arrays, count))
    return _merge(outputs)


def _num_microbatches(batch: int, min_size: int) -> int:
    """Return the largest divisor of the batch size for which microbatches have `min_size` rows or more."""
    return max(count for count in range(1, max(batch // min_size, 1) + 1) if batch % count == 0)


def _split(tree: Any, count: int) -> Any:
    """(batch, …) -> (count, batch / count, …)."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), tree)


def _merge(tree: Any) -> Any:
    """(count, size, …) -> (count * size, …); the inverse of `_split`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), tree)
