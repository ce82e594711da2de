"""A series cut into windows several times, each time a share of the way from a window to the next further on.

What a window sees depends on where it happens to begin; the mean over the offsets depends on it less.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def window_offset_starts(num_window_offsets: int, step: int) -> list[int]:
    """Where each begins, in points: 0 and on, in steps of (about) step / num_window_offsets; `step` is that of the windows."""
    return [step * place // num_window_offsets for place in range(num_window_offsets)]


def make_offset_views(views: Float[Array, "batch time"], num_window_offsets: int, step: int) -> Float[Array, "rows length"]:
    """The stretches of each view that begin at `window_offset_starts`, next to each other; as long as the last one allows."""
    starts = window_offset_starts(num_window_offsets, step)
    length = views.shape[1] - starts[-1]
    return jnp.stack([views[:, start : start + length] for start in starts], axis=1).reshape(views.shape[0] * num_window_offsets, length)


def average_over_offsets(found: Float[Array, "rows *rest"], num_window_offsets: int) -> Float[Array, "batch *rest"]:
    """The mean over what was found at each shift."""
    return (
        found
        if num_window_offsets == 1
        else found.reshape(found.shape[0] // num_window_offsets, num_window_offsets, *found.shape[1:]).mean(1)
    )
