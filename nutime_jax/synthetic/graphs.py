"""Random causal graphs over processes, and series that change from one law to another."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.synthetic.draws import Range, choice, deal, log_uniform, normal

SHARE_EDGE = 0.4
"""How often a node has an edge from each of the nodes before it; one edge, from a random node, is sure."""

GAIN: Range = (0.7, 2.0)
"""Log-uniform standard deviation, before the activation, of the combination of a node's parents."""

BIAS = 0.5
"""Standard deviation of the constant that is added before the activation."""

SQUARE_LIMIT = 4.0
"""Standard deviations beyond which the square grows no more."""

SHARE_REGIMES = 0.15
"""How many series change their law."""

CHANGES = 3
"""Most changes of a series; 1 to this many are as likely as each other."""

LEAK = 0.2
"""Slope of the leaky ReLU below zero."""

FLAT = 1e-4
"""A process with a smaller standard deviation counts as constant: what is left of it is rounding."""

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

SHARES = (0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05)
"""How often each activation is drawn."""


def standardise(x: Float[Array, "*batch time"]) -> Float[Array, "*batch time"]:
    """Mean 0 and standard deviation 1; a constant stays constant."""
    centred = x - x.mean(-1, keepdims=True)
    std = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True))
    return centred / jnp.where(std > FLAT, std, 1)


def causal_mixing(key: Key[Array, ""], roots: Float[Array, "roots time"], nodes: int) -> Float[Array, "{nodes} time"]:
    """Grows a random graph without cycles from its roots (CauKer, arXiv 2508.02879).

    Every node that is not a root is a random activation of a random linear combination of nodes before it. All nodes are
    standardised.

    Args:
        key: one key.
        roots: independent processes, shape (roots, time).
        nodes: nodes of the graph, roots included.
    """
    first = roots.shape[0]
    mixed, before = nodes - first, jnp.arange(nodes)
    kind, sure, gain, bias, weights, edges = deal(key, *[(mixed,)] * 4, *[(mixed, nodes)] * 2)

    def grow(series, node):
        place, kind, sure, gain, bias, weights, edges = node
        edge = (before < place) & ((edges < SHARE_EDGE) | (before == jnp.floor(sure * place)))
        combination = (jnp.where(edge, normal(weights), 0)[:, None] * series).sum(0)
        drive = log_uniform(gain, GAIN) * standardise(combination) + BIAS * normal(bias)
        activated = jax.lax.switch(choice(kind, SHARES), ACTIVATIONS, drive)
        return series.at[place].set(standardise(activated)), None

    series = jnp.concatenate([standardise(roots), jnp.zeros((mixed, roots.shape[1]), roots.dtype)])
    return jax.lax.scan(grow, series, (jnp.arange(first, nodes), kind, sure, gain, bias, weights, edges))[0]


def change_regimes(u: Float[Array, "changes_and_2"], series: Float[Array, " time"], other: Float[Array, " time"]) -> Float[Array, " time"]:
    """Lets some series change to the law of another one, and back, at up to CHANGES random points."""
    happens, size, place = u[0], u[1], u[2:]
    time = series.shape[-1]
    place = jnp.where((jnp.arange(place.size) <= size * place.size) & (happens < SHARE_REGIMES), place, 1) * time
    passed = (jnp.arange(time)[None] >= place[:, None]).sum(0)
    return jnp.where(passed % 2 == 1, other, series)
