"""Positions of tokens in a series: where they are, and how that is told to the blocks.

A token's place is a number: 0 is CLS, 1 the window at the start, 2 the one a stride further on. Windows of a further size have
the place of the point at which they begin, so that those that begin together have one place; it need not be whole.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BASE = 10000.0
"""Of the wave lengths of sines, and of rotations: from 2 pi places to that many times it."""


def token_places(counts: dict[int, int], window: int) -> Float[np.ndarray, " tokens"]:
    """The places of CLS and of the windows of each size, size -> how many, in units of those of `window` points.

    All sizes overlap by the same share of themselves, so that `size / window` strides of the one make a stride of the other.
    """
    return np.concatenate([[0.0], *(1 + np.arange(count) * (size / window) for size, count in counts.items())])


def sinusoidal_positions(tokens: int, width: int) -> np.ndarray:
    """Fixed sine-cosine positions, shape (tokens, width), sines at even places; rounded to float32 as the release's are."""
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(BASE) / width))
    angle = np.arange(tokens, dtype=np.float32)[:, None] * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(tokens, -1)[:, :width]


def read_table(table: Float[Array, "rows width"], places: Float[np.ndarray, " tokens"]) -> Float[Array, "tokens width"]:
    """Rows of a table of positions, linear between rows where a place is not whole."""
    if np.array_equal(places, np.arange(len(places))):
        return table[: len(places)]
    below, above = np.floor(places).astype(int), np.ceil(places).astype(int)
    share = jnp.asarray(places - below, table.dtype)[:, None]
    return table[below] + share * (table[above] - table[below])


def rotary_angles(places: Float[np.ndarray, " tokens"], head_dim: int) -> Float[np.ndarray, "tokens pairs"]:
    """By how much each pair of numbers of a query or key is turned: place / BASE^(2 pair / head_dim), in radians."""
    return places[:, None] * BASE ** (-np.arange(0, head_dim, 2) / head_dim)


def rotate(
    x: Float[Array, "batch heads tokens head_dim"], angles: Float[np.ndarray, "tokens pairs"]
) -> Float[Array, "batch heads tokens head_dim"]:
    """Queries or keys, turned in the planes of (number i, number i + head_dim / 2).

    The product of a query and a key then depends on the difference of their places, and on no place (Su et al., 2021).
    """
    cos, sin = (jnp.asarray(fn(angles), x.dtype)[None, None] for fn in (np.cos, np.sin))
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
