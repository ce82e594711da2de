"""What a sensor makes of a process: limited range and resolution, a frozen reading, units of any scale and offset."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.synthetic.draws import Range, choice, deal, either_sign, log_uniform, uniform
from nutime_jax.synthetic.graphs import CHANGES, change_regimes, standardise

SHARE_SATURATED = 0.1
"""How many series are clipped at one end or both."""

SATURATION: Range = (0.3, 2.0)
"""Uniform distance from the mean at which they are, in standard deviations."""

SHARE_QUANTISED = 0.15
"""How many series are rounded to a grid."""

RESOLUTION: Range = (0.02, 1.0)
"""Log-uniform step of the grid, in standard deviations."""

SHARE_FROZEN = 0.1
"""How many series hold one value for a stretch."""

FROZEN: Range = (0.02, 0.4)
"""Log-uniform length of the stretch, as a share of the series."""

STD: Range = (1e-5, 1e5)
"""Log-uniform standard deviation: one decade more at each end than the scales of the released embedding."""

SHARES_OFFSET = (0.35, 0.25, 0.4)
"""How many series have mean zero, minimum zero, or an offset of either sign."""

OFFSET: Range = (0.1, 1e3)
"""Log-uniform size of the offset in standard deviations; float32 keeps the shape to 6e-5 of them."""


def saturate(u: Float[Array, "3"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Clips some standardised series above, below or at both ends."""
    happens, limit, ends = u
    limit = jnp.where(happens < SHARE_SATURATED, uniform(limit, SATURATION), jnp.inf)
    return jnp.clip(series, jnp.where(ends < 2 / 3, -limit, -jnp.inf), jnp.where(ends > 1 / 3, limit, jnp.inf))


def quantise(u: Float[Array, "2"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Rounds some standardised series to a grid."""
    happens, step = u[0], log_uniform(u[1], RESOLUTION)
    return jnp.where(happens < SHARE_QUANTISED, jnp.round(series / step) * step, series)


def freeze(u: Float[Array, "3"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Holds the value at a random time for a random stretch, in some series."""
    happens, start, stretch = u
    length = series.shape[-1]
    since = jnp.arange(length) - jnp.floor(start * length)
    held = jnp.where(since == 0, series, 0).sum()
    frozen = (happens < SHARE_FROZEN) & (since >= 0) & (since < log_uniform(stretch, FROZEN) * length)
    return jnp.where(frozen, held, series)


def to_units(u: Float[Array, "5"], series: Float[Array, " time"]) -> Float[Array, " time"]:
    """Gives a series a random sign, offset and standard deviation."""
    sign, kind, offset, side, std = u
    series = standardise(series) * either_sign(sign)
    offset = log_uniform(offset, OFFSET) * either_sign(side)
    offset = jax.lax.select_n(choice(kind, SHARES_OFFSET), jnp.zeros_like(offset), -series.min(), offset)
    return log_uniform(std, STD) * (series + offset)


def observe(key: Key[Array, ""], series: Float[Array, " time"], other: Float[Array, " time"]) -> Float[Array, " time"]:
    """A standardised series, some of them with regimes of the law of another one, as a random sensor gives it."""
    regimes, limits, grid, stretch, units = deal(key, (CHANGES + 2,), (3,), (2,), (3,), (5,))
    series = standardise(change_regimes(regimes, series, other))
    return to_units(units, freeze(stretch, quantise(grid, saturate(limits, series))))
