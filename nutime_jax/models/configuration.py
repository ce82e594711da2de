"""An encoder as a configuration describes it: what can be chosen, and what is refused."""

from collections.abc import Sequence

import numpy as np

from nutime_jax.config import ModelConfig
from nutime_jax.errors import InputError
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.scalar_encoders import check_scalar_encoder


def check_input_lengths(input_lengths: Sequence[int | str], network: NuTimeEncoder) -> tuple[int, ...]:
    """Lengths that the network can read series at, numbers or their digits, as numbers.

    Raises:
        InputError: one is named twice, the windows do not divide it, or there are too few positions for it.
    """
    for one in input_lengths:
        if not str(one).isdecimal() or not _fits(int(one), network):
            raise InputError(f"length {one} cannot be embedded; choose {_lengths_in_words(network.config)}")
    if len(set(input_lengths)) < len(input_lengths):
        raise InputError(f"input_lengths are {', '.join(map(str, input_lengths))}; name each once")
    return tuple(int(one) for one in input_lengths)


def _fits(length: int, network: NuTimeEncoder) -> bool:
    try:
        return length > 0 and network.count_tokens(length) <= network.config.max_tokens
    except InputError:
        return False


def _lengths_in_words(model: ModelConfig) -> str:
    if model.window_stride == model.window_size and not model.extra_window_sizes:
        return f"a multiple of the window, {model.window_size}, up to {(model.max_tokens - 1) * model.window_size}"
    kinds = " and ".join(f"of {size} points every {step}" for size, step in model.window_specs)
    return f"one that windows {kinds} fill to its end, at most {model.max_tokens - 1} of them"


def check_num_window_offsets(num_window_offsets: object, network: NuTimeEncoder) -> int:
    """Raises InputError unless a window can be laid so many times before the next one, a point or more apart."""
    model = network.config
    if (
        not isinstance(num_window_offsets, (int, np.integer))
        or isinstance(num_window_offsets, bool)
        or not 1 <= num_window_offsets <= model.window_stride
    ):
        points = "points of a window" if model.window_stride == model.window_size else "points from a window to the next"
        raise InputError(
            f"num_window_offsets is {num_window_offsets!r}; choose a whole number from 1 to the {points}, {model.window_stride}"
        )
    return int(num_window_offsets)


def check_diff_orders(diff_orders: Sequence[int | str]) -> tuple[int, ...]:
    """Orders of differences that series are read at, numbers or their digits, as numbers.

    Raises:
        InputError: one is named twice, or is neither 0, the series itself, nor 1, its differences.
    """
    for one in diff_orders:
        if isinstance(one, bool) or str(one) not in ("0", "1"):
            raise InputError(f"diff_orders has {one}; choose 0 (the series), 1 (its first difference), or both")
    if len(set(diff_orders)) < len(diff_orders):
        raise InputError(f"diff_orders are {', '.join(map(str, diff_orders))}; name each once")
    return tuple(int(one) for one in diff_orders)


def build_encoder(model: ModelConfig, *, remat: str = "none") -> NuTimeEncoder:
    """Return the encoder of the `model` section.

    Args:
        remat: activations that blocks recompute in the backward pass, see REMAT.

    Raises:
        InputError: the scalar encoder is not registered, or an option does not fit it.
    """
    check_scalar_encoder(model)
    return NuTimeEncoder(model, remat=remat)
