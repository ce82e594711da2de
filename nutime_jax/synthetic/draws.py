"""The numbers behind a synthetic series: uniform draws, and the laws that are made of them.

Every call of a random generator costs compile time, so a stage deals all its uniform numbers at once, and its parts take them
instead of keys.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

Range = tuple[float, float]
"""Lowest and highest value of a law, 0 < lowest <= highest for log-uniform ones."""


def deal(key: Key[Array, ""], *shapes: tuple[int, ...]) -> list[Float[Array, "..."]]:
    """Arrays of the given shapes of numbers uniform in [0, 1), from one call of the generator. Float32 whatever the default."""
    sizes = [math.prod(shape) for shape in shapes]
    numbers = jnp.split(jax.random.uniform(key, (sum(sizes),), jnp.float32), np.cumsum(sizes)[:-1])
    return [block.reshape(shape) for block, shape in zip(numbers, shapes, strict=True)]


def either_sign(u: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 or -1, as likely as each other."""
    return jnp.where(u < 0.5, jnp.float32(-1), jnp.float32(1))


def uniform(u: Float[Array, "*n"], span: Range) -> Float[Array, "*n"]:
    """Uniform between the ends of `span`."""
    return span[0] + u * (span[1] - span[0])


def log_uniform(u: Float[Array, "*n"], span: Range) -> Float[Array, "*n"]:
    """Uniform in the logarithm: every factor of ten of `span` is as likely as the next."""
    return span[0] * jnp.exp(u * np.float32(np.log(span[1] / span[0])))


def normal(u: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Standard normal, between -5.3 and 5.3."""
    half_a_step = jnp.float32(2**-23)  # the uniform numbers are multiples of 2^-23, and 0 is one of them
    return jnp.float32(2**0.5) * jax.lax.erf_inv(2 * u - 1 + half_a_step)


def choice(u: Float[Array, "*n"], shares: Sequence[float]) -> Int[Array, "*n"]:
    """Index i with probability shares[i]; the shares sum to 1."""
    edges = np.cumsum(shares, dtype=np.float32)[:-1]
    return sum((u >= edge).astype(jnp.int32) for edge in edges)
