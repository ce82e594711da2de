"""Which windows of a series are hidden in training: keyed and pure, and of every series the same number."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from nutime_jax.errors import InputError


def count_masked(windows: int, share: float) -> int:
    """How many of so many windows a share is: one at least is hidden, and one is seen.

    Raises:
        InputError: there are less than two windows.
    """
    if windows < 2:
        raise InputError(f"a series of {windows} window cannot be masked; choose a length of 2 windows or more")
    return min(max(round(share * windows), 1), windows - 1)


def sample_mask(key: Key[Array, ""], rows: int, windows: int, *, share: float, kind: str) -> Bool[Array, "{rows} {windows}"]:
    """True where a window is hidden, `count_masked` of every row; each window is hidden as often as any other.

    Args:
        key: one key for all rows; masks do not depend on the number of devices.
        rows, windows: how many series, and windows of each.
        share: of the windows, between 0 and 1.
        kind: "random" (any set of windows is as likely as any other) or "block" (neighbours; a block that meets the end
            goes on at the beginning).

    Raises:
        InputError: an unknown kind, or less than two windows.
    """
    if kind not in MASK_SAMPLERS:
        raise InputError(f"mask kind {kind!r} is unknown; choose one of {', '.join(MASK_SAMPLERS)}")
    return MASK_SAMPLERS[kind](key, rows, windows, count_masked(windows, share))


def masked_indices(mask: Bool[Array, "rows windows"], count: int) -> Int[Array, "rows {count}"]:
    """Where the windows stand that are hidden, in the order of time; `count` is how many a row has."""
    return jnp.argsort(~mask, axis=1, stable=True)[:, :count]


def _random(key: Key[Array, ""], rows: int, windows: int, count: int) -> Bool[Array, "{rows} {windows}"]:
    order = jnp.argsort(jax.random.uniform(key, (rows, windows)), axis=1)
    return jnp.argsort(order, axis=1) < count  # by rank, so that a tie hides no window more


def _block(key: Key[Array, ""], rows: int, windows: int, count: int) -> Bool[Array, "{rows} {windows}"]:
    start = jax.random.randint(key, (rows, 1), 0, windows)
    return (jnp.arange(windows)[None] - start) % windows < count


MASK_SAMPLERS: dict[str, Callable[[Key[Array, ""], int, int, int], Bool[Array, "rows windows"]]] = {"random": _random, "block": _block}
"""By the name that a configuration has for it: (key, rows, windows, hidden of each row) -> mask."""
