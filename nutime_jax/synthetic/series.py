"""Synthetic series as a pure function of a key."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.errors import InputError
from nutime_jax.synthetic.processes import causal_mixing, random_processes
from nutime_jax.synthetic.sensors import observe

GROUP = 8
"""Number of series per causal graph. They are adjacent and dependent; series of different graphs are independent."""

ROOTS = 4
"""Number of Gaussian processes at the roots of a graph; they are series, and the other series depend on them."""

MAX_LENGTH = 2**20
"""Maximum length of a series, in time points."""


@functools.partial(jax.jit, static_argnames=("count", "length"))
def synthetic_series(key: Key[Array, ""], *, count: int, length: int) -> Float[Array, "{count} {length}"]:
    """Sample synthetic series, float32 and finite.

    The method follows CauKer (Xie et al. 2025, arXiv 2508.02879): Gaussian processes of random kernels and mean functions
    are the roots of random causal graphs, and the nodes of a graph are its series. Added here: change points, sensor
    effects, and scales and offsets over many orders of magnitude.

    Row i depends on `key`, i and `length` only, not on `count` or the sharding of rows. One executable repeats its bits;
    others return the same series up to float32 rounding. (Between 1 and 8 devices, 0.5 % of the time points of 2,048 series
    differed by more than 1e-4 standard deviations, and none by more than 1e-3. Steps and grids may turn rounding into
    another value at single time points.)

    Args:
        key: one key.
        count: number of series, at least 1; groups of GROUP series share a graph.
        length: time points of a series, 2 to MAX_LENGTH.

    Returns:
        (count, length).

    Raises:
        InputError: count or length is out of range.
    """
    if count < 1:
        raise InputError(f"count is {count}; choose 1 or more synthetic series")
    if not 2 <= length <= MAX_LENGTH:
        raise InputError(f"length of synthetic series is {length}; choose 2 to {MAX_LENGTH} time points")
    graphs = -(-count // GROUP)

    # The key of a graph depends on its index, not on the number of graphs.
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 1 + 2 * ROOTS + GROUP))(jnp.arange(graphs))
    graph_keys, root_keys, sensor_keys = keys[:, 0], keys[:, 1 : 1 + 2 * ROOTS], keys[:, 1 + 2 * ROOTS :]

    roots = random_processes(root_keys.reshape(graphs * ROOTS, 2), length).reshape(graphs, ROOTS, length)
    nodes = jax.vmap(lambda key, roots: causal_mixing(key, roots, GROUP))(graph_keys, roots)
    series = jax.vmap(jax.vmap(observe))(sensor_keys, nodes, jnp.roll(nodes, 1, axis=1))
    return series.reshape(graphs * GROUP, length)[:count]
