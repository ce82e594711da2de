"""Masks of windows: pure functions of a key, with the same number of masked windows in every series."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from nutime_jax.errors import InputError


def count_masked(windows: int, ratio: float) -> int:
    """Return the number of masked windows for a mask ratio; at least one is masked and one is visible.

    Raises:
        InputError: there are fewer than two windows.
    """
    if windows < 2:
        raise InputError(f"a series of {windows} window cannot be masked; choose a length of 2 windows or more")
    return min(max(round(ratio * windows), 1), windows - 1)


def sample_mask(key: Key[Array, ""], rows: int, windows: int, *, ratio: float, mask_type: str) -> Bool[Array, "{rows} {windows}"]:
    """Sample a mask: True for masked windows, `count_masked` per row; all windows are masked equally often.

    Args:
        key: one key for all rows; masks do not depend on the number of devices.
        rows: number of series.
        windows: windows per series.
        ratio: mask ratio, between 0 and 1.
        mask_type: "random" (uniform over sets of windows) or "block" (adjacent windows, wrapping around at the end).

    Returns:
        (rows, windows).

    Raises:
        InputError: the mask type is unknown, or there are fewer than two windows.
    """
    if mask_type not in MASK_SAMPLERS:
        raise InputError(f"mask_type {mask_type!r} is unknown; choose one of {', '.join(MASK_SAMPLERS)}")
    return MASK_SAMPLERS[mask_type](key, rows, windows, count_masked(windows, ratio))


def masked_indices(mask: Bool[Array, "rows windows"], count: int) -> Int[Array, "rows {count}"]:
    """Return the indices of masked windows in ascending order; each row has `count`."""
    return jnp.argsort(~mask, axis=1, stable=True)[:, :count]


def _random(key: Key[Array, ""], rows: int, windows: int, count: int) -> Bool[Array, "{rows} {windows}"]:
    order = jnp.argsort(jax.random.uniform(key, (rows, windows)), axis=1)
    return jnp.argsort(order, axis=1) < count  # ranks, so that ties do not mask further windows


def _block(key: Key[Array, ""], rows: int, windows: int, count: int) -> Bool[Array, "{rows} {windows}"]:
    start = jax.random.randint(key, (rows, 1), 0, windows)
    return (jnp.arange(windows)[None] - start) % windows < count


MaskSampler = Callable[[Key[Array, ""], int, int, int], Bool[Array, "rows windows"]]
MASK_SAMPLERS: dict[str, MaskSampler] = {"random": _random, "block": _block}
"""Mask type -> function of (key, rows, windows, masked windows per row)."""
