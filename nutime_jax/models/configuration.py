"""An encoder as a configuration describes it: what can be chosen, and what is refused."""

from collections.abc import Sequence

import numpy as np

from nutime_jax.config import ModelConfig
from nutime_jax.errors import InputError
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.scalar_encoders import check_scalars


def check_lengths(lengths: Sequence[int | str], network: NuTimeEncoder) -> tuple[int, ...]:
    """Lengths that the network can read series at, numbers or their digits, as numbers.

    Raises:
        InputError: one is named twice, the windows do not divide it, or there are too few positions for it.
    """
    for one in lengths:
        if not str(one).isdecimal() or not _fits(int(one), network):
            raise InputError(f"length {one} cannot be embedded; choose {_lengths_in_words(network.config)}")
    if len(set(lengths)) < len(lengths):
        raise InputError(f"lengths are {', '.join(map(str, lengths))}; name each once")
    return tuple(int(one) for one in lengths)


def _fits(length: int, network: NuTimeEncoder) -> bool:
    try:
        return length > 0 and network.count_tokens(length) <= network.config.max_tokens
    except InputError:
        return False


def _lengths_in_words(model: ModelConfig) -> str:
    if model.step == model.window and not model.windows:
        return f"a multiple of the window, {model.window}, up to {(model.max_tokens - 1) * model.window}"
    kinds = " and ".join(f"of {size} points every {step}" for size, step in model.sizes)
    return f"one that windows {kinds} fill to its end, at most {model.max_tokens - 1} of them"


def check_shifts(shifts: object, network: NuTimeEncoder) -> int:
    """Raises InputError unless a window can be laid so many times before the next one, a point or more apart."""
    model = network.config
    if not isinstance(shifts, (int, np.integer)) or isinstance(shifts, bool) or not 1 <= shifts <= model.step:
        points = "points of a window" if model.step == model.window else "points from a window to the next"
        raise InputError(f"shifts is {shifts!r}; choose a whole number from 1 to the {points}, {model.step}")
    return int(shifts)


def check_orders(orders: Sequence[int | str]) -> tuple[int, ...]:
    """Orders of differences that series are read at, numbers or their digits, as numbers.

    Raises:
        InputError: one is named twice, or is neither 0, the series itself, nor 1, its differences.
    """
    for one in orders:
        if isinstance(one, bool) or str(one) not in ("0", "1"):
            raise InputError(f"order {one} cannot be read; choose 0, the series, or 1, its differences, or both")
    if len(set(orders)) < len(orders):
        raise InputError(f"orders are {', '.join(map(str, orders))}; name each once")
    return tuple(int(one) for one in orders)


def build_encoder(model: ModelConfig, *, remat: str = "none") -> NuTimeEncoder:
    """Return the encoder of the `model` section.

    Args:
        remat: activations that blocks recompute in the backward pass, see REMAT.

    Raises:
        InputError: the scalar encoder is not registered, or an option does not fit it.
    """
    check_scalars(model)
    return NuTimeEncoder(model, remat=remat)
