"""Dropout with a counter-based hash. Masks are computed inside the fused kernel; random bits are never materialised."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt32


def drop(key: Key[Array, ""], x: Float[Array, "batch *rest"], *, rate: float) -> Float[Array, "batch *rest"]:
    """Set each element to zero with probability `rate`, and divide the others by 1 - rate.

    JAX's generator samples two 32-bit words per row. A hash of the words and of an element's index in the row decides
    whether the element is dropped. Threefry per element costs more than the matmuls around it on CPU, and most of such a
    step on TPU; the hash is a dozen operations that fuse with their consumers. Masks depend on the key and the shape
    only, so they are equal on any number of devices, and each device computes its own part.

    Args:
        key: one key for the array.
        x: the first axis is the batch.
        rate: dropout rate, 0 <= rate < 1, with a resolution of 2^-32.
    """
    words = random_words(key, x.shape[0]).reshape(2, x.shape[0], *[1] * (x.ndim - 1))
    return jnp.where(is_kept(_flat_indices(x.shape[1:])[None], *words, rate=rate), x / (1 - rate), jnp.zeros((), x.dtype))


def random_words(key: Key[Array, ""], batch: int) -> UInt32[Array, "2 batch"]:
    """Return the two words of each row that determine its mask."""
    return jax.random.bits(key, (2, batch), jnp.uint32)


def is_kept(index: UInt32[Array, "..."], first: UInt32[Array, "..."], second: UInt32[Array, "..."], *, rate: float) -> Bool[Array, "..."]:
    """Return whether dropout keeps the elements of these indices in a row with two random words."""
    return _hash(index, first, second) >= jnp.uint32(round(rate * 2**32))


def _flat_indices(shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """Return 0, 1, 2, … in memory order."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    return index


def _hash(index: UInt32[Array, "..."], first: UInt32[Array, "..."], second: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Return 32 bits for an index and two words.

    Multiplications and shifts of lowbias32 (C. Wellons, "Prospecting for hash functions", 2018). The second word is added
    half-way, so that rows with similar first words do not have shifted masks.
    """
    x = index * jnp.uint32(0x9E3779B1) + first
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = ((x ^ (x >> 15)) + second) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
