"""Functions of a Flax module, computed in microbatches of rows, which need less memory at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

COLLECTIONS = ("params", "constants")
"""Collections of the variables of an encoder."""


MAX_PARTS = 4
"""Most microbatches without recomputation: the time to compile grows with their number."""


class Microbatches(NamedTuple):
    """Division of a batch.

    min_rows: minimum number of rows of a microbatch, over all devices. All have equal size, so a batch of a prime number of rows
        is one microbatch. None is the full batch.
    recompute: whether the backward pass computes a microbatch again, and saves only its inputs. Otherwise it saves all
        intermediate values, each microbatch is compiled separately, and there are at most `MAX_PARTS`.
    """

    min_rows: int | None = None
    recompute: bool = True


FULL_BATCH = Microbatches()


def default_microbatches(platform: str, devices: int) -> Microbatches:
    """Return the microbatches of the encoder on the devices of a mesh.

    32 rows on CPU, whose caches hold their activations (measured); 256 rows per TPU, whose vector memory holds their attention
    scores (compiler estimate); the full batch on GPUs. See benchmarks/NOTES.md.
    """
    defaults = {"cpu": Microbatches(32), "tpu": Microbatches(256 * devices, recompute=False)}
    return defaults.get(platform, FULL_BATCH)


def map_microbatches(fn: Callable[..., Any], module: nn.Module, *arrays: Any, microbatches: Microbatches) -> Any:
    """Return fn(module, *arrays), computed in microbatches.

    Row i is in microbatch i % count: each device has rows of every microbatch, and no row moves between devices.

    Args:
        fn: function of a module and arrays (batch, …) that returns arrays (batch, …); rows are independent.
        module: Flax module, passed to `fn`.
        arrays: trees of arrays (batch, …), or None.
    """
    count = _num_microbatches(len(arrays[0]), microbatches)
    if count == 1:
        return fn(module, *arrays)
    parts = _split(arrays, count)
    if not microbatches.recompute:
        outputs = [fn(module, *jax.tree.map(lambda leaf: leaf[i], parts)) for i in range(count)]  # noqa: B023 called at once
        return _merge(jax.tree.map(lambda *rows: jnp.stack(rows), *outputs))

    def body(module: nn.Module, carry: tuple, microbatch: tuple) -> tuple[tuple, Any]:
        return carry, fn(module, *microbatch)

    body = nn.remat(body, prevent_cse=False)
    scan = nn.scan(body, variable_broadcast=COLLECTIONS, split_rngs={"params": False, "dropout": True})
    _, outputs = scan(module, (), parts)
    return _merge(outputs)


def _num_microbatches(batch: int, microbatches: Microbatches) -> int:
    """Return the largest divisor of the batch size that leaves microbatches `min_rows` rows, up to `MAX_PARTS` without recomputation."""
    most = batch // (microbatches.min_rows or batch)
    if not microbatches.recompute:
        most = min(most, MAX_PARTS)
    return max(count for count in range(1, max(most, 1) + 1) if batch % count == 0)


def _split(tree: Any, count: int) -> Any:
    """(batch, …) -> (count, batch / count, …)."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), tree)


def _merge(tree: Any) -> Any:
    """(count, size, …) -> (count * size, …); the inverse of `_split`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), tree)
