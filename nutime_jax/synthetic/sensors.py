"""Sensor effects on a process: limited range and resolution, frozen values, units of any scale and offset."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.synthetic.kernels import Range, choice, either_sign, log_uniform, sample_uniform, uniform
from nutime_jax.synthetic.processes import CHANGES, change_regimes, standardise

PROB_SATURATED = 0.1
"""Probability that a series is clipped at one end or both."""

SATURATION: Range = (0.3, 2.0)
"""Uniform distance of the limits from the mean, in standard deviations."""

PROB_QUANTISED = 0.15
"""Probability that a series is rounded to a grid."""

RESOLUTION: Range = (0.02, 1.0)
"""Log-uniform step of the grid, in standard deviations."""

PROB_FROZEN = 0.1
"""Probability that a segment of a series is constant."""

FROZEN: Range = (0.02, 0.4)
"""Log-uniform length of the constant segment, as a fraction of the series."""

STD: Range = (1e-5, 1e5)
"""Log-uniform std: at each end a factor of 10 beyond the scales of the paper."""

OFFSET_PROBS = (0.35, 0.25, 0.4)
"""Probabilities of mean 0, minimum 0, and an offset of either sign."""

OFFSET: Range = (0.1, 1e3)
"""Log-uniform offset in standard deviations; float32 preserves the shape to 6e-5 of them."""


def saturate(u: Float[Array, "3"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Clip some standardised series above, below or at both ends."""
    happens, limit, ends = u
    limit = jnp.where(happens < PROB_SATURATED, uniform(limit, SATURATION), jnp.inf)
    return jnp.clip(series, jnp.where(ends < 2 / 3, -limit, -jnp.inf), jnp.where(ends > 1 / 3, limit, jnp.inf))


def quantise(u: Float[Array, "2"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Round some standardised series to a grid."""
    happens, step = u[0], log_uniform(u[1], RESOLUTION)
    return jnp.where(happens < PROB_QUANTISED, jnp.round(series / step) * step, series)


def freeze(u: Float[Array, "3"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Repeat the value at a random time for a random segment, in some series."""
    happens, start, size = u
    length = series.shape[-1]
    since = jnp.arange(length) - jnp.floor(start * length)
    held = jnp.where(since == 0, series, 0).sum()
    frozen = (happens < PROB_FROZEN) & (since >= 0) & (since < log_uniform(size, FROZEN) * length)
    return jnp.where(frozen, held, series)


def to_units(u: Float[Array, "5"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Return a series with random sign, offset and std."""
    sign, kind, offset, side, std = u
    series = standardise(series) * either_sign(sign)
    offset = log_uniform(offset, OFFSET) * either_sign(side)
    offset = jax.lax.select_n(choice(kind, OFFSET_PROBS), jnp.zeros_like(offset), -series.min(), offset)
    return log_uniform(std, STD) * (series + offset)


def observe(key: Key[Array, ""], series: Float[Array, " time"], other: Float[Array, " time"]) -> Float[Array, " time"]:
    """Apply regime changes and a random sensor to a standardised series."""
    u = sample_uniform(key, {"regimes": (CHANGES + 2,), "limits": (3,), "grid": (2,), "frozen": (3,), "units": (5,)})
    series = standardise(change_regimes(u["regimes"], series, other))
    return to_units(u["units"], freeze(u["frozen"], quantise(u["grid"], saturate(u["limits"], series))))
