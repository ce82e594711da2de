"""Dropout whose masks are computed where they are used, and never cross memory as random bits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32


def drop(key: Key[Array, ""], x: Float[Array, "batch *rest"], *, rate: float) -> Float[Array, "batch *rest"]:
    """Sets each element to zero with probability `rate`, and divides the others by 1 - rate.

    Every row has two words of its own, drawn by JAX's generator; an element of it is dropped by a hash of its place in
    the row under these words. Threefry for every element costs more than the matrix products around it on a CPU, and a
    TPU spends most of such a step on it; the hash is a dozen operations that fuse with what they are for. Masks depend
    on the key and the shape alone, so on any number of devices they are the same, and no device draws those of another.

    Args:
        key: one key for the whole array.
        x: the first axis is the batch.
        rate: 0 <= rate < 1, met to 2^-32.
    """
    words = jax.random.bits(key, (2, x.shape[0], *[1] * (x.ndim - 1)), jnp.uint32)
    kept = _hash(_places(x.shape[1:])[None], *words) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


def _places(shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """0, 1, 2, … in an array of that shape, in the order of its memory."""
    place, step = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(step)
        step *= shape[axis]
    return place


def _hash(place: UInt32[Array, "..."], first: UInt32[Array, "..."], second: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """32 bits of a place under two words.

    Multiplications and shifts of lowbias32 (C. Wellons, "Prospecting for hash functions", 2018). The second word enters
    half-way, so that rows whose first words are close do not have shifted masks.
    """
    x = place * jnp.uint32(0x9E3779B1) + first
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = ((x ^ (x >> 15)) + second) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
