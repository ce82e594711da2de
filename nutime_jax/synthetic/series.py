"""The stream of synthetic series."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.errors import InputError
from nutime_jax.synthetic.graphs import causal_mixing
from nutime_jax.synthetic.processes import random_processes
from nutime_jax.synthetic.sensors import observe

GROUP = 8
"""Series of one causal graph. They follow each other, and depend on each other; those of different graphs do not."""

ROOTS = 4
"""Gaussian processes at the roots of a graph; they are series of their own, the other ones are made of them."""

MAX_LENGTH = 2**20
"""Points of the longest series."""


@functools.partial(jax.jit, static_argnames=("count", "length"))
def synthetic_series(key: Key[Array, ""], *, count: int, length: int) -> Float[Array, "{count} {length}"]:
    """Draws synthetic series, float32 and finite, shape (count, length).

    In the manner of CauKer (Xie et al. 2025, arXiv 2508.02879): Gaussian processes of random kernels and mean
    functions are the roots of random causal graphs, and the nodes of a graph are its series. What is added here: change
    points, sensors, and a scale and an offset that are drawn over many decades, which is what NuTime is about.

    Row i depends on `key`, i and `length` alone, not on `count` or on how rows are split over devices: one program repeats
    its bits, and others give the same series up to float32 rounding. (Between 1 and 8 devices 0.5% of the points of 2,048
    series differed by more than 1e-4 standard deviations, and none by more than 1e-3; a step or a grid in the law of a
    series may turn rounding into another value at single points.)

    Args:
        key: one key.
        count: number of series, at least 1; groups of GROUP share a graph.
        length: points of a series, 2 to MAX_LENGTH.

    Raises:
        InputError: count or length is out of range.
    """
    if count < 1:
        raise InputError(f"{count} synthetic series were asked for; ask for at least 1")
    if not 2 <= length <= MAX_LENGTH:
        raise InputError(f"synthetic series of {length} points cannot be drawn; choose a length of 2 to {MAX_LENGTH}")
    graphs = -(-count // GROUP)

    # The key of a graph follows from its place, whatever the number of graphs.
    keys = jax.vmap(lambda place: jax.random.split(jax.random.fold_in(key, place), 1 + 2 * ROOTS + GROUP))(jnp.arange(graphs))
    graph_keys, root_keys, sensor_keys = keys[:, 0], keys[:, 1 : 1 + 2 * ROOTS], keys[:, 1 + 2 * ROOTS :]

    roots = random_processes(root_keys.reshape(graphs * ROOTS, 2), length).reshape(graphs, ROOTS, length)
    nodes = jax.vmap(lambda key, roots: causal_mixing(key, roots, GROUP))(graph_keys, roots)
    series = jax.vmap(jax.vmap(observe))(sensor_keys, nodes, jnp.roll(nodes, 1, axis=1))
    return series.reshape(graphs * GROUP, length)[:count]
