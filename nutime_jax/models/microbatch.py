"""A batch in chunks, one after the other: what a chunk makes stays in the caches of a processor."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

COLLECTIONS = ("params", "constants")


def map_microbatches(fn: Callable[..., Any], module: nn.Module, *arrays: Any, microbatch_size: int | None) -> Any:
    """fn(module, *arrays), computed for about `microbatch_size` rows at a time, and again on the way back.

    The gradient keeps no more of a chunk than what went in. Row i is in chunk i % count, so that every device has its
    share of each, and no row moves.

    Args:
        fn: of a module and of arrays (batch, ...); gives arrays (batch, ...), each row of its own.
        microbatch_size: the smallest size of a chunk; chunks are of equal size, so that a batch of a prime number is one. None is
            the whole batch at once.
    """
    batch = len(arrays[0])
    count = 1 if microbatch_size is None else max(parts for parts in range(1, max(batch // microbatch_size, 1) + 1) if batch % parts == 0)
    if count == 1:
        return fn(module, *arrays)
    once = nn.remat(lambda module, carry, chunk: (carry, fn(module, *chunk)), prevent_cse=False)
    scan = nn.scan(once, variable_broadcast=COLLECTIONS, split_rngs={"params": False, "dropout": True})
    _, found = scan(module, (), jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(-1, count, *leaf.shape[1:]), 1, 0), arrays))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(batch, *leaf.shape[2:]), found)
