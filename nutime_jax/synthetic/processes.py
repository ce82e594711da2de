"""Gaussian processes on a regular grid, drawn in O(n log n), and the mean functions that are added to them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.synthetic.draws import Range, choice, deal, either_sign, log_uniform, normal
from nutime_jax.synthetic.kernels import KERNELS, circle, cycles, periodic, phase, random_composition

SHARES_LINEAR = (0.6, 0.25, 0.15)
"""How often the linear kernel is left out, added or multiplied."""

SLOPE: Range = (0.3, 10.0)
"""Log-uniform standard deviation of an added line's slope, a series."""

SHARE_FAINT = 0.35
"""How often the Gaussian process is made faint, so that the mean function shows."""

FAINT: Range = (0.01, 1.0)
"""Log-uniform standard deviation of a faint Gaussian process."""

SHARE_EXPONENTIAL = 0.1
"""How often an exponential is added."""

GROWTH: Range = (1.0, 8.0)
"""Log-uniform growth or decay of the exponential, in factors of e a series; its range is HEIGHT."""

SHARE_PULSES = 0.25
"""How often a train of pulses is added: a sinusoid when they are wide, beats and spikes when they are narrow."""

WIDTH: Range = (0.05, 3.0)
"""Log-uniform length scale of a pulse, in radians of its period."""

EVENTS = 4
"""Most events of one process."""

SHARES_EVENTS = (0.6, 0.15, 0.15, 0.1)
"""How many processes have no events, spikes, level steps, or jumps that fade."""

SHARE_EVENT = 0.6
"""How often each of the EVENTS happens."""

FADE_SPIKE: Range = (0.3, 3.0)
"""Log-uniform time in which a spike fades by a factor of e, in points."""

FADE_JUMP: Range = (0.02, 0.5)
"""The same of a jump that fades, as a share of the series. A level step never fades."""

HEIGHT: Range = (0.5, 10.0)
"""Log-uniform height of events, pulses and exponentials; a Gaussian process has standard deviation 1."""

ROUNDING = 6e-6
"""Float32 rounding r of an eigenvalue e, in root sums of squares of the row: e - r^2 / e is used, or zero where e < r.

Measured: at most 4.2e-6 (length 2048). Left in, it would put white noise of up to 9e-4 standard deviations on a smooth process.
"""


def stationary_process(row: Float[Array, "*batch half"], noise: Float[Array, "*batch period"]) -> Float[Array, "*batch period"]:
    """Stationary Gaussian processes by circulant embedding (Dietrich and Newsam 1997, SIAM J. Sci. Comput. 18(4)).

    White noise times the square root of the circulant matrix of the row: the covariance of points up to period / 2 apart is
    row[lag], as far as the matrix has no negative eigenvalues. They are set to zero. White, Matérn 1/2 and periodic kernels
    have none; the slope of the others does not quite vanish half round the circle. For length scales up to an eighth of the
    circle, LENGTH_SCALE, that moves the covariance of an RBF by at most 8e-5 of the variance, of a Matérn 3/2 or 5/2 by 2e-4
    and of a rational quadratic by 3e-3 (computed in float64, lengths 16 to 2048); at a quarter of the circle it would be 3e-2.

    Split over devices by rows, XLA of jax 0.10 gathers the operands of FFTs on every device; that of jax 0.12 does not.

    Args:
        row: covariance at lags 0, 1, ..., period / 2, shape (..., period / 2 + 1).
        noise: standard normal numbers, shape (..., period).
    """
    period = noise.shape[-1]
    spectrum = jnp.fft.hfft(row, period)[..., : row.shape[-1]]
    rounding = ROUNDING * jnp.sqrt(jnp.square(row).sum(-1, keepdims=True))
    spectrum = jnp.maximum(spectrum - jnp.square(rounding) / jnp.maximum(spectrum, rounding), 0)
    return jnp.fft.irfft(jnp.sqrt(spectrum) * jnp.fft.rfft(noise), period)


def with_linear_kernel(u: Float[Array, "4"], process: Float[Array, " time"]) -> Float[Array, " time"]:
    """Adds the linear kernel (t - a)(s - a) to that of a process, multiplies the two, or leaves the process as it is.

    In closed form: an added linear kernel is a line of normal slope through zero at a, and a multiplied one makes
    (t - a) times the process. Times and a are shares of the series.
    """
    mode, slope, spread, origin = u
    slope = normal(slope) * log_uniform(spread, SLOPE)
    length = process.shape[-1]
    line = jnp.arange(length, dtype=jnp.float32) / length - origin
    return jax.lax.select_n(choice(mode, SHARES_LINEAR), process, process + slope * line, process * line)


def pulses(u: Float[Array, "3"], length: int) -> Float[Array, " {length}"]:
    """A train of bumps of height 1, one a period."""
    period, start, width = u
    turns = phase(cycles(period, length), circle(length), jnp.arange(length))
    return periodic(turns + start, log_uniform(width, WIDTH))


def exponential(u: Float[Array, "2"], length: int) -> Float[Array, " {length}"]:
    """Exponential growth or decay, with its largest value, 1, at one end."""
    rate, side = u
    time = jnp.arange(length, dtype=jnp.float32) / length
    return jnp.exp(-log_uniform(rate, GROWTH) * jnp.where(side < 0.5, time, 1 - time))


def events(kind: Float[Array, ""], u: Float[Array, "events 5"], length: int) -> Float[Array, " {length}"]:
    """Jumps at random times that fade at once (spikes), never (level steps) or slowly; zero for most processes."""
    kind = choice(kind, SHARES_EVENTS)

    def event(u):
        present, place, height, sign, fade = u
        height = jnp.where((present < SHARE_EVENT) & (kind > 0), log_uniform(height, HEIGHT), 0) * either_sign(sign)
        never = jnp.zeros_like(fade)
        rate = jax.lax.select_n(kind, never, 1 / log_uniform(fade, FADE_SPIKE), never, 1 / (log_uniform(fade, FADE_JUMP) * length))
        since = jnp.arange(length, dtype=jnp.float32) - jnp.floor(place * length)
        return jnp.where(since < 0, 0, height * jnp.exp(-rate * jnp.maximum(since, 0)))

    return jax.vmap(event)(u).sum(0)


def random_processes(keys: Key[Array, "batch 2"], length: int) -> Float[Array, "batch {length}"]:
    """Gaussian processes of random kernels and mean functions, each from two keys."""
    composition, mean = ((KERNELS, 7), (3,)), ((4,), (2,), (2, 3), (3,), (2,), (), (EVENTS, 5))
    kernels, whole, *means = jax.vmap(lambda key: deal(key, *composition, *mean))(keys[:, 0])
    row = jax.vmap(lambda kernels, whole: random_composition(kernels, whole, length))(kernels, whole)
    noise = jax.vmap(lambda key: jax.random.normal(key, (circle(length),), jnp.float32))(keys[:, 1])

    def add_mean_function(process, linear, faint, heights, train, growth, kind, jumps):
        level = jnp.where(faint[0] < SHARE_FAINT, log_uniform(faint[1], FAINT), 1)
        present, height, sign = heights.T
        height = jnp.where(present < jnp.array([SHARE_PULSES, SHARE_EXPONENTIAL]), log_uniform(height, HEIGHT), 0) * either_sign(sign)
        mean = height[0] * pulses(train, length) + height[1] * exponential(growth, length) + events(kind, jumps, length)
        return level * with_linear_kernel(linear, process) + mean

    return jax.vmap(add_mean_function)(stationary_process(row, noise)[:, :length], *means)
