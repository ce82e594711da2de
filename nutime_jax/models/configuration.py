"""An encoder as a configuration describes it: what can be chosen, and what is refused."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import numpy as np
from ml_collections import ConfigDict

from nutime_jax.errors import InputError
from nutime_jax.models.encoder import REMAT, NuTimeEncoder
from nutime_jax.models.scalars import check_scalars
from nutime_jax.token_masks import check_masking


def check_lengths(lengths: Sequence[int | str], network: NuTimeEncoder) -> tuple[int, ...]:
    """Lengths that the network can read series at, numbers or their digits, as numbers.

    Raises:
        InputError: one is named twice, the windows do not divide it, or there are too few positions for it.
    """
    for one in lengths:
        if not str(one).isdecimal() or not _fits(int(one), network):
            raise InputError(f"length {one} cannot be embedded; choose {_lengths_in_words(network)}")
    if len(set(lengths)) < len(lengths):
        raise InputError(f"lengths are {', '.join(map(str, lengths))}; name each once")
    return tuple(int(one) for one in lengths)


def _fits(length: int, network: NuTimeEncoder) -> bool:
    try:
        return length > 0 and network.count_tokens(length) <= network.max_tokens
    except InputError:
        return False


def _lengths_in_words(network: NuTimeEncoder) -> str:
    if network.step == network.window and not network.windows:
        return f"a multiple of the window, {network.window}, up to {(network.max_tokens - 1) * network.window}"
    kinds = " and ".join(f"of {size} points every {step}" for size, step in network.sizes)
    return f"one that windows {kinds} fill to its end, at most {network.max_tokens - 1} of them"


def check_shifts(shifts: object, network: NuTimeEncoder) -> int:
    """Raises InputError unless a window can be laid so many times before the next one, a point or more apart."""
    if not isinstance(shifts, (int, np.integer)) or isinstance(shifts, bool) or not 1 <= shifts <= network.step:
        points = "points of a window" if network.step == network.window else "points from a window to the next"
        raise InputError(f"shifts is {shifts!r}; choose a whole number from 1 to the {points}, {network.step}")
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


def build_encoder(config: ConfigDict, *, remat: str = "none") -> NuTimeEncoder:
    """The encoder that the `model` section of a configuration describes; what it leaves out has the released value.

    Args:
        remat: what its blocks compute again on the way back, see REMAT.

    Raises:
        InputError: a name that is no attribute of `NuTimeEncoder`, a value that is none of its, or none of REMAT.
    """
    known = released_fields()
    if unknown := sorted(set(config) - set(known)):
        raise InputError(f"model.{unknown[0]} is unknown; an encoder has {', '.join(sorted(known))}")
    if remat not in REMAT:
        raise InputError(f"remat is {remat!r}; choose one of {', '.join(REMAT)}")
    fields = {name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in config.items()}
    _check_values({**known, **fields})
    return NuTimeEncoder(**fields, remat=remat)


def _check_values(values: Mapping[str, Any]) -> None:
    """Raises InputError where values of attributes make no sense, alone or together."""
    for field in dataclasses.fields(NuTimeEncoder):
        if field.name in values and get_origin(field.type) is Literal and values[field.name] not in get_args(field.type):
            raise InputError(f"model.{field.name} is {values[field.name]!r}; choose one of {', '.join(get_args(field.type))}")
    _check_windows(values["window"], values["stride"], values["windows"])
    if values["windows"] and values["backbone"] != "transformer":
        raise InputError(
            f"model.windows is {values['windows']}, and a {values['backbone']} sees its tokens in one order; leave model.windows empty"
        )
    check_scalars(values)
    check_masking(*(values[name] for name in ("mask", "mask_kind", "mask_fill")), names="model.mask")
    dropping = values["mask"] and values["mask_fill"] == "drop"
    if dropping and (values["backbone"] != "transformer" or values["positions"] == "rotary"):
        raise InputError(
            "model.mask_fill is 'drop', after which neighbours and places are no longer those of the series; choose 'learned', or "
            "a transformer whose model.positions is a table"
        )
    if values["positions"] == "rotary" and (values["backbone"] != "transformer" or values["head_dim"] % 2):
        raise InputError("model.positions is 'rotary', which turns pairs of numbers of queries; choose a transformer with an even head_dim")


def _check_windows(window: object, stride: object, windows: object) -> None:
    """Refuses windows that leave gaps, and those of several sizes that cannot overlap alike or be told apart."""
    if not isinstance(windows, tuple):
        raise InputError(f"model.windows is {windows!r}; give the further sizes as a list")
    for name, value, least in (("window", window, 1), ("stride", stride, 0), *(("windows", size, 1) for size in windows)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise InputError(f"model.{name} is {windows if name == 'windows' else value!r}; choose whole numbers from {least} up")
    if stride > window:
        raise InputError(f"model.stride is {stride}, and windows of {window} points would leave gaps; choose at most {window}")
    if len({window, *windows}) <= len(windows):
        raise InputError(f"model.windows is {windows} beside model.window {window}; name each size once")
    step = stride or window
    for size in windows:
        if window % step or size * step % window:
            raise InputError(
                f"model.windows is {windows}, and windows of {size} points cannot overlap by the share that those of {window} every "
                f"{stride} do; choose a stride that is a whole part of the window, and sizes of which the same part is whole"
            )


def released_fields() -> dict[str, object]:
    """What a `model` section may say, with the values of the released model."""
    return {field.name: field.default for field in dataclasses.fields(NuTimeEncoder) if field.name not in ("parent", "name", "remat")}
