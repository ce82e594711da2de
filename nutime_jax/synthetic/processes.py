"""Gaussian processes on a regular grid, sampled in O(n log n), with mean functions; random causal graphs over them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.synthetic.kernels import (
    KERNELS,
    Range,
    choice,
    circle,
    cycles,
    either_sign,
    log_uniform,
    normal,
    periodic,
    phase,
    random_composition,
    sample_uniform,
)

PROB_EDGE = 0.4
"""Probability of an edge from each earlier node; one edge, from a random earlier node, is certain."""

GAIN: Range = (0.7, 2.0)
"""Log-uniform std of the combination of a node's parents before the activation."""

BIAS = 0.5
"""Std of the constant added before the activation."""

SQUARE_LIMIT = 4.0
"""Limit of the bounded square, in standard deviations."""

PROB_REGIMES = 0.15
"""Probability that a series changes its regime."""

CHANGES = 3
"""Maximum number of changes of a series; the number is uniform from 1."""

LEAK = 0.2
"""Slope of the leaky ReLU below zero."""

FLAT = 1e-4
"""A process with a smaller std counts as constant: the rest is rounding."""

ACTIVATIONS = (
    lambda x: x,
    jnp.sin,
    jnp.tanh,
    jax.nn.relu,
    lambda x: jax.nn.leaky_relu(x, LEAK),
    jnp.abs,
    lambda x: jnp.square(jnp.clip(x, -SQUARE_LIMIT, SQUARE_LIMIT)),
    lambda x: x - jnp.floor(x),
    lambda x: (x > 0).astype(x.dtype),
)
"""Identity, sine, tanh, ReLU, leaky ReLU, absolute value, bounded square, modulo 1 and step."""

ACTIVATION_PROBS = (0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05)
"""Probability of each activation."""

LINEAR_PROBS = (0.6, 0.25, 0.15)
"""Probabilities that the linear kernel is omitted, added or multiplied."""

SLOPE: Range = (0.3, 10.0)
"""Log-uniform std of the slope of an added line, per series length."""

PROB_FAINT = 0.35
"""Probability that the Gaussian process is scaled down, so that the mean function dominates."""

FAINT: Range = (0.01, 1.0)
"""Log-uniform std of a Gaussian process that is scaled down."""

PROB_EXPONENTIAL = 0.1
"""Probability of an added exponential."""

GROWTH: Range = (1.0, 8.0)
"""Log-uniform growth or decay of the exponential, in factors of e per series; its range is HEIGHT."""

PROB_PULSES = 0.25
"""Probability of an added pulse train: a sinusoid if pulses are wide, spikes if they are narrow."""

WIDTH: Range = (0.05, 3.0)
"""Log-uniform length scale of a pulse, in radians of its period."""

EVENTS = 4
"""Maximum number of events of a process."""

EVENT_PROBS = (0.6, 0.15, 0.15, 0.1)
"""Probabilities of no events, spikes, level steps, and jumps that fade."""

PROB_EVENT = 0.6
"""Probability of each of the EVENTS."""

FADE_SPIKE: Range = (0.3, 3.0)
"""Log-uniform time in which a spike fades by a factor of e, in time points."""

FADE_JUMP: Range = (0.02, 0.5)
"""The same for a jump that fades, as a fraction of the series. A level step does not fade."""

HEIGHT: Range = (0.5, 10.0)
"""Log-uniform height of events, pulses and exponentials; a Gaussian process has std 1."""

ROUNDING = 6e-6
"""Float32 rounding r of an eigenvalue e, relative to the root sum of squares of the row: e becomes e - r^2 / e, or 0 if e < r.

Measured: at most 4.2e-6 (length 2048). Uncorrected, it would add white noise of up to 9e-4 standard deviations to a smooth process.
"""


def stationary_process(row: Float[Array, "*batch half"], noise: Float[Array, "*batch period"]) -> Float[Array, "*batch period"]:
    """Return stationary Gaussian processes by circulant embedding (Dietrich and Newsam 1997, SIAM J. Sci. Comput. 18(4)).

    White noise is multiplied by the square root of the circulant matrix of the row. The covariance at lags up to period / 2
    is row[lag] if the matrix has no negative eigenvalues; these are set to zero. White, Matérn 1/2 and periodic kernels
    have none; the slope of the others does not vanish at half the circle. For length scales up to an eighth of the circle
    (LENGTH_SCALE), this changes the covariance of an RBF by at most 8e-5 of the variance, of a Matérn 3/2 or 5/2 by 2e-4
    and of a rational quadratic by 3e-3 (computed in float64, lengths 16 to 2048); at a quarter of the circle by 3e-2.

    With rows sharded over devices, XLA of jax 0.10 gathers the operands of FFTs on every device; XLA of jax 0.12 does not.

    Args:
        row: covariance at lags 0, 1, …, period / 2, (…, period / 2 + 1).
        noise: standard normal numbers, (…, period).
    """
    period = noise.shape[-1]
    spectrum = jnp.fft.hfft(row, period)[..., : row.shape[-1]]
    rounding = ROUNDING * jnp.sqrt(jnp.square(row).sum(-1, keepdims=True))
    spectrum = jnp.maximum(spectrum - jnp.square(rounding) / jnp.maximum(spectrum, rounding), 0)
    return jnp.fft.irfft(jnp.sqrt(spectrum) * jnp.fft.rfft(noise), period)


def with_linear_kernel(u: Float[Array, "4"], process: Float[Array, " time"]) -> Float[Array, " time"]:
    """Add the linear kernel (t - a)(s - a) to the kernel of a process, multiply the two, or return the process unchanged.

    In closed form: an added linear kernel is a line of normal slope with its zero at a; a multiplied one is (t - a) times
    the process. Times and a are fractions of the series.
    """
    mode, slope, slope_std, origin = u
    slope = normal(slope) * log_uniform(slope_std, SLOPE)
    length = process.shape[-1]
    line = jnp.arange(length, dtype=jnp.float32) / length - origin
    return jax.lax.select_n(choice(mode, LINEAR_PROBS), process, process + slope * line, process * line)


def pulses(u: Float[Array, "3"], length: int) -> Float[Array, " {length}"]:
    """Return a pulse train of height 1, one pulse per period."""
    period, start, width = u
    turns = phase(cycles(period, length), circle(length), jnp.arange(length))
    return periodic(turns + start, log_uniform(width, WIDTH))


def exponential(u: Float[Array, "2"], length: int) -> Float[Array, " {length}"]:
    """Return exponential growth or decay with its maximum, 1, at one end."""
    rate, side = u
    time = jnp.arange(length, dtype=jnp.float32) / length
    return jnp.exp(-log_uniform(rate, GROWTH) * jnp.where(side < 0.5, time, 1 - time))


def events(kind: Float[Array, ""], u: Float[Array, "events 5"], length: int) -> Float[Array, " {length}"]:
    """Return jumps at random times that fade fast (spikes), slowly, or not (level steps); zero for most processes."""
    kind = choice(kind, EVENT_PROBS)

    def event(u):
        present, start, height, sign, fade = u
        height = jnp.where((present < PROB_EVENT) & (kind > 0), log_uniform(height, HEIGHT), 0) * either_sign(sign)
        never = jnp.zeros_like(fade)
        rate = jax.lax.select_n(kind, never, 1 / log_uniform(fade, FADE_SPIKE), never, 1 / (log_uniform(fade, FADE_JUMP) * length))
        since = jnp.arange(length, dtype=jnp.float32) - jnp.floor(start * length)
        return jnp.where(since < 0, 0, height * jnp.exp(-rate * jnp.maximum(since, 0)))

    return jax.vmap(event)(u).sum(0)


def random_processes(keys: Key[Array, "batch 2"], length: int) -> Float[Array, "batch {length}"]:
    """Return Gaussian processes of random kernels and mean functions, each from two keys."""
    shapes = {"kernels": (KERNELS, 7), "composition": (3,), "linear": (4,), "faint": (2,), "heights": (2, 3)}
    shapes |= {"pulses": (3,), "growth": (2,), "kind": (), "events": (EVENTS, 5)}
    numbers = jax.vmap(lambda key: sample_uniform(key, shapes))(keys[:, 0])
    row = jax.vmap(lambda u: random_composition(u["kernels"], u["composition"], length))(numbers)
    noise = jax.vmap(lambda key: jax.random.normal(key, (circle(length),), jnp.float32))(keys[:, 1])

    def add_mean_function(process, u):
        level = jnp.where(u["faint"][0] < PROB_FAINT, log_uniform(u["faint"][1], FAINT), 1)
        present, height, sign = u["heights"].T
        height = jnp.where(present < jnp.array([PROB_PULSES, PROB_EXPONENTIAL]), log_uniform(height, HEIGHT), 0) * either_sign(sign)
        mean = height[0] * pulses(u["pulses"], length) + height[1] * exponential(u["growth"], length)
        return level * with_linear_kernel(u["linear"], process) + (mean + events(u["kind"], u["events"], length))

    return jax.vmap(add_mean_function)(stationary_process(row, noise)[:, :length], numbers)


def standardise(x: Float[Array, "*batch time"]) -> Float[Array, "*batch time"]:
    """Return the series with mean 0 and std 1; a constant series becomes 0."""
    centred = x - x.mean(-1, keepdims=True)
    std = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True))
    return centred / jnp.where(std > FLAT, std, 1)


def causal_mixing(key: Key[Array, ""], roots: Float[Array, "roots time"], nodes: int) -> Float[Array, "{nodes} time"]:
    """Return the nodes of a random acyclic graph that grows from its roots (CauKer, arXiv 2508.02879).

    Each other node is a random activation of a random linear combination of earlier nodes. All nodes are standardised.

    Args:
        key: one key.
        roots: independent processes, (roots, time).
        nodes: number of nodes, roots included.
    """
    first = roots.shape[0]
    mixed, before = nodes - first, jnp.arange(nodes)
    shapes = {"kind": (mixed,), "certain": (mixed,), "gain": (mixed,), "bias": (mixed,)}
    numbers = sample_uniform(key, {**shapes, "weights": (mixed, nodes), "edges": (mixed, nodes)})

    def grow(series, node):
        index, u = node
        edge = (before < index) & ((u["edges"] < PROB_EDGE) | (before == jnp.floor(u["certain"] * index)))
        combination = (jnp.where(edge, normal(u["weights"]), 0)[:, None] * series).sum(0)
        drive = log_uniform(u["gain"], GAIN) * standardise(combination) + BIAS * normal(u["bias"])
        activated = jax.lax.switch(choice(u["kind"], ACTIVATION_PROBS), ACTIVATIONS, drive)
        return series.at[index].set(standardise(activated)), None

    series = jnp.concatenate([standardise(roots), jnp.zeros((mixed, roots.shape[1]), roots.dtype)])
    return jax.lax.scan(grow, series, (jnp.arange(first, nodes), numbers))[0]


def change_regimes(u: Float[Array, "changes_and_2"], series: Float[Array, " time"], other: Float[Array, " time"]) -> Float[Array, " time"]:
    """Switch some series to another series and back, at up to CHANGES random time points."""
    happens, size, starts = u[0], u[1], u[2:]
    time = series.shape[-1]
    starts = jnp.where((jnp.arange(starts.size) <= size * starts.size) & (happens < PROB_REGIMES), starts, 1) * time
    passed = (jnp.arange(time)[None] >= starts[:, None]).sum(0)
    return jnp.where(passed % 2 == 1, other, series)
