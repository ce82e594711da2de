"""Uniform random numbers and distributions; stationary kernels of Gaussian processes and random compositions of them.

A stationary kernel on a grid is one row of its covariance matrix. Rows here are circular, as sampling by FFT requires: they
cover the lags 0 to period / 2 of a circle of `period` time points, at least twice the length of the series. Sums and products
of kernels are kernels (Duvenaud et al. 2013, arXiv 1302.4922), and so are those of circular rows. All kernels have variance 1;
lags and length scales are in time points.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

Range = tuple[float, float]
"""Minimum and maximum of a distribution; both positive for log-uniform ones."""


def sample_uniform(key: Key[Array, ""], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Float[Array, "..."]]:
    """Sample arrays of uniform numbers in [0, 1), float32, with one call of the generator.

    Each call of a generator costs compile time. A stage therefore samples all its numbers together, and its parts take
    numbers instead of keys.

    Args:
        key: one key.
        shapes: name -> shape; the order determines the numbers.
    """
    sizes = [math.prod(shape) for shape in shapes.values()]
    numbers = jnp.split(jax.random.uniform(key, (sum(sizes),), jnp.float32), np.cumsum(sizes)[:-1])
    return {name: block.reshape(shape) for block, (name, shape) in zip(numbers, shapes.items(), strict=True)}


def either_sign(u: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return 1 or -1 with equal probability."""
    return jnp.where(u < 0.5, jnp.float32(-1), jnp.float32(1))


def uniform(u: Float[Array, "*n"], span: Range) -> Float[Array, "*n"]:
    """Return numbers that are uniform in `span`."""
    return span[0] + u * (span[1] - span[0])


def log_uniform(u: Float[Array, "*n"], span: Range) -> Float[Array, "*n"]:
    """Return numbers whose logarithm is uniform in `span`."""
    return span[0] * jnp.exp(u * np.float32(np.log(span[1] / span[0])))


def normal(u: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return standard normal numbers, between -5.3 and 5.3."""
    half_step = jnp.float32(2**-23)  # uniform numbers are multiples of 2^-23, including 0
    return jnp.float32(2**0.5) * jax.lax.erf_inv(2 * u - 1 + half_step)


def choice(u: Float[Array, "*n"], probs: Sequence[float]) -> Int[Array, "*n"]:
    """Return index i with probability probs[i]; these sum to 1."""
    edges = np.cumsum(probs, dtype=np.float32)[:-1]
    return sum((u >= edge).astype(jnp.int32) for edge in edges)


KERNELS = 4
"""Maximum number of stationary kernels of a composition."""

KERNEL_PROBS = (0.22, 0.12, 0.08, 0.12, 0.14, 0.32)
"""Probabilities of an RBF, a rational quadratic, a Matérn 1/2, 3/2, 5/2 and a periodic kernel."""

LENGTH_SCALE = (4.0, 0.25)
"""Log-uniform length scale: minimum in time points, maximum as a fraction of the series; longer ones do not fit the circle."""

MIXTURE: Range = (0.3, 10.0)
"""Log-uniform alpha of the rational quadratic; a smaller alpha has a heavier tail."""

PERIOD = (6.0, 1.0)
"""Log-uniform period: minimum in time points, maximum as a fraction of the series."""

SHARPNESS: Range = (0.3, 2.0)
"""Log-uniform length scale of the periodic kernel in radians, from sharp pulses to near sinusoids."""

AMPLITUDE: Range = (0.1, 1.0)
"""Log-uniform variance of an added kernel."""

PROB_PRODUCT = 0.4
"""Probability that a kernel multiplies the composition; otherwise it is added."""

PROB_WHITE = 0.4
"""Probability of white noise in a composition."""

WHITE: Range = (1e-5, 0.3)
"""Log-uniform variance of the white noise, relative to the rest."""


def circle(length: int) -> int:
    """Return the time points of the circle of a series: the smallest power of two of at least twice its length."""
    return 1 << (2 * length - 1).bit_length()


def phase(cycles: Int[Array, ""], period: int, lags: Int[Array, " n"]) -> Float[Array, " n"]:
    """Return the phase at each lag in turns, [0, 1), for integer cycles per circle; exact, since the circle is a power of two."""
    product = cycles.astype(jnp.uint32) * lags.astype(jnp.uint32)
    return (product & jnp.uint32(period - 1)).astype(jnp.float32) / period


def cycles(u: Float[Array, "*n"], length: int) -> Int[Array, "*n"]:
    """Return an integer number of cycles per circle, for a log-uniform period (PERIOD)."""
    shortest, longest = PERIOD[0], max(PERIOD[0], PERIOD[1] * length)
    return jnp.maximum(jnp.round(circle(length) / log_uniform(u, (shortest, longest))), 1).astype(jnp.int32)


def rbf(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """Return exp(-r^2 / 2), r = lag / scale: smooth."""
    return jnp.exp(-jnp.square(lag / scale) / 2)


def rational_quadratic(lag: Float[Array, "*n"], scale: Float[Array, ""], alpha: Float[Array, ""]) -> Float[Array, "*n"]:
    """Return (1 + r^2 / (2 alpha))^-alpha: a mixture of RBFs of many scales."""
    return jnp.exp(-alpha * jnp.log1p(jnp.square(lag / scale) / (2 * alpha)))


def matern12(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """Return exp(-r): continuous and rough, the Ornstein-Uhlenbeck process (Rasmussen and Williams 2006, section 4.2)."""
    return jnp.exp(-lag / scale)


def matern32(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """Return (1 + s) exp(-s), s = sqrt(3) r: differentiable once."""
    s = jnp.float32(3**0.5) * lag / scale
    return (1 + s) * jnp.exp(-s)


def matern52(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """Return (1 + s + s^2 / 3) exp(-s), s = sqrt(5) r: differentiable twice."""
    s = jnp.float32(5**0.5) * lag / scale
    return (1 + s + jnp.square(s) / 3) * jnp.exp(-s)


def periodic(turns: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """Return exp(-2 sin^2(pi turns) / scale^2), which has a period of one turn."""
    return jnp.exp((jnp.cos(2 * jnp.pi * turns) - 1) / jnp.square(scale))


def white(lag: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return 1 at lag 0, else 0: white noise."""
    return (lag == 0).astype(lag.dtype)


def random_kernel(u: Float[Array, "5"], length: int) -> Float[Array, " half"]:
    """Return the circular row of a kernel of random family and parameters."""
    family, scale, alpha, period, sharpness = u
    lags = jnp.arange(circle(length) // 2 + 1)
    lag = lags.astype(jnp.float32)
    scale = log_uniform(scale, (LENGTH_SCALE[0], max(LENGTH_SCALE[0], LENGTH_SCALE[1] * length)))
    families = (
        lambda: rbf(lag, scale),
        lambda: rational_quadratic(lag, scale, log_uniform(alpha, MIXTURE)),
        lambda: matern12(lag, scale),
        lambda: matern32(lag, scale),
        lambda: matern52(lag, scale),
        lambda: periodic(phase(cycles(period, length), circle(length), lags), log_uniform(sharpness, SHARPNESS)),
    )
    return jax.lax.switch(choice(family, KERNEL_PROBS), families)


def random_composition(u: Float[Array, "kernels 7"], whole: Float[Array, "3"], length: int) -> Float[Array, " half"]:
    """Return the circular row of a random composition: kernels that are added or multiplied in order. Variance 1.

    White noise comes last and is always added, since its product with a kernel is white noise.

    Args:
        u: uniform numbers of each kernel; the number of kernels used is uniform.
        whole: uniform numbers of the composition.
        length: time points of the series; the row has circle(length) / 2 + 1 lags.
    """
    size, noisy, level = whole
    parts = jax.vmap(lambda u: random_kernel(u, length))(u[:, :5])
    product, amplitude = u[:, 5] < PROB_PRODUCT, log_uniform(u[:, 6], AMPLITUDE)
    row = parts[0]
    for i in range(1, len(u)):
        joined = jnp.where(product[i], row * parts[i], row + amplitude[i] * parts[i])
        row = jnp.where(i <= size * len(u), joined, row)
    noise = jnp.where(noisy < PROB_WHITE, log_uniform(level, WHITE), 0)
    return (row / row[0] + noise * white(jnp.arange(row.size, dtype=row.dtype))) / (1 + noise)
