"""Stationary kernels of Gaussian processes and random compositions of them.

A stationary kernel on a grid is one row of its covariance matrix. Rows here are circular: they cover the lags 0..period/2 of
a circle of `period` points that is at least twice as long as the series, which is what sampling by FFT needs. Sums and
products of kernels are kernels (Duvenaud et al. 2013, arXiv 1302.4922), and so are those of circular rows. All kernels have
variance 1; lags and length scales are in points.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nutime_jax.synthetic.draws import Range, choice, log_uniform

KERNELS = 4
"""Most stationary kernels of a composition."""

SHARES = (0.22, 0.12, 0.08, 0.12, 0.14, 0.32)
"""How often a kernel is an RBF, a rational quadratic, a Matérn 1/2, 3/2, 5/2 or a periodic one."""

LENGTH_SCALE = (4.0, 0.25)
"""Log-uniform length scale: from so many points to such a share of the series; longer ones do not fit the circle."""

MIXTURE: Range = (0.3, 10.0)
"""Log-uniform alpha of the rational quadratic, the smaller the heavier its tail."""

PERIOD = (6.0, 1.0)
"""Log-uniform period: from so many points to such a share of the series."""

SHARPNESS: Range = (0.3, 2.0)
"""Log-uniform length scale of the periodic kernel, in radians: sharp pulses to near sinusoids."""

AMPLITUDE: Range = (0.1, 1.0)
"""Log-uniform variance of a kernel that is added."""

SHARE_PRODUCT = 0.4
"""How often a kernel multiplies the composition so far; otherwise it is added."""

SHARE_WHITE = 0.4
"""How many compositions carry white noise."""

WHITE: Range = (1e-5, 0.3)
"""Log-uniform variance of the white noise, relative to the rest."""


def circle(length: int) -> int:
    """Points of the circle that a series is cut from: the smallest power of two of at least twice its length."""
    return 1 << (2 * length - 1).bit_length()


def phase(cycles: Int[Array, ""], period: int, lags: Int[Array, " n"]) -> Float[Array, " n"]:
    """Turns made at each lag, in [0, 1), at a whole number of cycles a circle. Exact: the circle is a power of two."""
    product = cycles.astype(jnp.uint32) * lags.astype(jnp.uint32)
    return (product & jnp.uint32(period - 1)).astype(jnp.float32) / period


def cycles(u: Float[Array, "*n"], length: int) -> Int[Array, "*n"]:
    """Whole cycles a circle, for a log-uniform period (see PERIOD)."""
    shortest, longest = PERIOD[0], max(PERIOD[0], PERIOD[1] * length)
    return jnp.maximum(jnp.round(circle(length) / log_uniform(u, (shortest, longest))), 1).astype(jnp.int32)


def rbf(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """exp(-r^2 / 2), r = lag / scale: smooth."""
    return jnp.exp(-jnp.square(lag / scale) / 2)


def rational_quadratic(lag: Float[Array, "*n"], scale: Float[Array, ""], alpha: Float[Array, ""]) -> Float[Array, "*n"]:
    """(1 + r^2 / (2 alpha))^-alpha: RBFs of many scales."""
    return jnp.exp(-alpha * jnp.log1p(jnp.square(lag / scale) / (2 * alpha)))


def matern12(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """exp(-r): continuous and rough, the Ornstein-Uhlenbeck process (Rasmussen and Williams 2006, section 4.2)."""
    return jnp.exp(-lag / scale)


def matern32(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """(1 + s) exp(-s), s = sqrt(3) r: differentiable once."""
    s = jnp.float32(3**0.5) * lag / scale
    return (1 + s) * jnp.exp(-s)


def matern52(lag: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """(1 + s + s^2 / 3) exp(-s), s = sqrt(5) r: differentiable twice."""
    s = jnp.float32(5**0.5) * lag / scale
    return (1 + s + jnp.square(s) / 3) * jnp.exp(-s)


def periodic(turns: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """exp(-2 sin^2(pi turns) / scale^2): repeats itself after one turn."""
    return jnp.exp((jnp.cos(2 * jnp.pi * turns) - 1) / jnp.square(scale))


def white(lag: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 at lag 0, else 0: noise."""
    return (lag == 0).astype(lag.dtype)


def random_kernel(u: Float[Array, "5"], length: int) -> Float[Array, " half"]:
    """Circular row of one kernel of random family and parameters."""
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
    return jax.lax.switch(choice(family, SHARES), families)


def random_composition(u: Float[Array, "kernels 7"], whole: Float[Array, "3"], length: int) -> Float[Array, " half"]:
    """Circular row of a random composition: one or more kernels, each added to or multiplied with those before it.

    White noise comes last and is only ever added, since its product with any kernel is white again. Variance 1.

    Args:
        u: numbers of each kernel that may take part; all numbers of them are as likely as each other.
        whole: numbers of the composition.
        length: points of the series; the row has circle(length) / 2 + 1 lags.
    """
    size, noisy, level = whole
    parts = jax.vmap(lambda u: random_kernel(u, length))(u[:, :5])
    product, amplitude = u[:, 5] < SHARE_PRODUCT, log_uniform(u[:, 6], AMPLITUDE)
    row = parts[0]
    for i in range(1, len(u)):
        joined = jnp.where(product[i], row * parts[i], row + amplitude[i] * parts[i])
        row = jnp.where(i <= size * len(u), joined, row)
    noise = jnp.where(noisy < SHARE_WHITE, log_uniform(level, WHITE), 0)
    return (row / row[0] + noise * white(jnp.arange(row.size, dtype=row.dtype))) / (1 + noise)
