"""A series cut into windows several times, each time a share of the way from a window to the next further on.

What a window sees depends on where it happens to begin; the mean over shifts depends on it less.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def shift_starts(shifts: int, step: int) -> list[int]:
    """Where each begins, in points: 0 and on, in steps of (about) step / shifts; `step` is that of the windows."""
    return [step * place // shifts for place in range(shifts)]


def shifted(views: Float[Array, "batch time"], shifts: int, step: int) -> Float[Array, "rows length"]:
    """The stretches of each view that begin at `shift_starts`, next to each other; as long as the last one allows."""
    starts = shift_starts(shifts, step)
    length = views.shape[1] - starts[-1]
    return jnp.stack([views[:, start : start + length] for start in starts], axis=1).reshape(views.shape[0] * shifts, length)


def mean_of_shifts(found: Float[Array, "rows *rest"], shifts: int) -> Float[Array, "batch *rest"]:
    """The mean over what was found at each shift."""
    return found if shifts == 1 else found.reshape(found.shape[0] // shifts, shifts, *found.shape[1:]).mean(1)
