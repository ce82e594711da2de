"""Position embeddings: sinusoidal and learned tables, rotary angles.

The position of a token is a number: 0 for CLS, 1 for the first window, 2 for the window one stride later. Windows of further
sizes have the position of the time point at which they start, which may be a fraction. Windows that start together share it.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ROPE_THETA = 10000.0
"""Ratio of the longest to the shortest wavelength of sinusoidal and rotary embeddings; the shortest is 2 pi positions."""


def token_positions(counts: dict[int, int], window: int) -> Float[np.ndarray, " tokens"]:
    """Return the positions of CLS and of all windows.

    All window sizes overlap by the same fraction, so `size / window` strides of windows of `window` time points are one
    stride of windows of `size`.

    Args:
        counts: window size -> number of windows.
        window: main window size, in time points; its stride is the unit of positions.
    """
    return np.concatenate([[0.0], *(1 + np.arange(count) * (size / window) for size, count in counts.items())])


def sinusoidal_positions(tokens: int, width: int) -> np.ndarray:
    """Return the fixed table (tokens, width), sines in even columns, rounded to float32 like the official table."""
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(ROPE_THETA) / width))
    angle = np.arange(tokens, dtype=np.float32)[:, None] * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(tokens, -1)[:, :width]


def interpolate_pos_embedding(table: Float[Array, "rows width"], positions: Float[np.ndarray, " tokens"]) -> Float[Array, "tokens width"]:
    """Return rows of a table, interpolated linearly at fractional positions."""
    if np.array_equal(positions, np.arange(len(positions))):
        return table[: len(positions)]
    below, above = np.floor(positions).astype(int), np.ceil(positions).astype(int)
    fraction = jnp.asarray(positions - below, table.dtype)[:, None]
    return table[below] + fraction * (table[above] - table[below])


def rotary_angles(positions: Float[np.ndarray, " tokens"], head_dim: int) -> Float[np.ndarray, "tokens pairs"]:
    """Return rotation angles position / ROPE_THETA^(2 pair / head_dim), in radians (Su et al., 2021)."""
    return positions[:, None] * ROPE_THETA ** (-np.arange(0, head_dim, 2) / head_dim)


def apply_rotary(
    x: Float[Array, "batch heads tokens head_dim"], angles: Float[np.ndarray, "tokens pairs"]
) -> Float[Array, "batch heads tokens head_dim"]:
    """Rotate queries or keys in the planes of elements (i, i + head_dim / 2).

    The dot product of a query and a key then depends on the difference of their positions only (Su et al., 2021).
    """
    cos, sin = (jnp.asarray(fn(angles), x.dtype)[None, None] for fn in (np.cos, np.sin))
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
