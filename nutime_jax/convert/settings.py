"""Settings of the official implementation: read from its files, checked, and inferred from the arrays of a state."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nutime_jax.errors import InputError

OFFICIAL_HEAD_DIM = 64
SETTINGS = {
    "window_size": int,
    "window_emb_dim": int,
    "transformer_depth": int,
    "transformer_heads": int,
    "transformer_head_dim": int,
    "transformer_mlp_dim": int,
    "transformer_max_tokens": int,
    "mb_emb_dim": int,
    "wne_use_in": bool,
    "wne_use_instance_stats": bool,
    "use_ms_embed": bool,
    "use_channel_emb_sum": bool,
    "scale_weighted_sum": bool,
    "loc_weighted_sum": bool,
    "dropout": float,
    "pe_mode": ("fixed", "learnable"),
    "transformer_mask_type": ("none", "learnable", "drop"),
    "transformer_mask_scale": float,
}
"""Official names and types of the settings that are used; official configurations contain many others."""


def infer_config(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the official configuration of a state: from its arrays where possible, else as given, else the official default.

    Shapes give all sizes, whether mean and std are embedded, and the product of number and width of the heads. The width is
    OFFICIAL_HEAD_DIM, and settings that leave no trace in the arrays (ablations, whether positions are trained) have their
    official defaults, unless given. Learned positions have their own number, in place of `transformer_max_tokens`.

    Raises:
        InputError: a required array is missing, a setting contradicts the arrays or has a wrong type, or the number of heads
            cannot be determined.
    """
    given = check_settings(config or {})
    arrays = arrays_below(mapping, "backbone.") if is_byol(mapping) else mapping
    if "1.pos_embed" not in arrays:
        raise InputError("The state has no 1.pos_embed. Only encoders with fixed or learnable positions can be converted.")
    window, positions = shape_of(arrays, "0.window_embedding.weight", axes=3), shape_of(arrays, "1.pos_embed", axes=3)
    scalars = "0.multi_bias_encoder.ws" in arrays
    depth = sum(name.startswith("1.transformer.layers.") and name.endswith(".to_qkv.weight") for name in arrays)
    shaped = {
        "window_size": window[2],
        "window_emb_dim": window[0],
        "transformer_depth": depth,
        "transformer_mlp_dim": shape_of(arrays, "1.transformer.layers.3.fn.layers.0.weight")[0],
        "transformer_max_tokens": positions[1],
    }
    if scalars:
        shape_of(arrays, "0.multi_bias_encoder.scales", axes=1)
        shaped["mb_emb_dim"] = shape_of(arrays, "0.multi_bias_encoder.ws")[1]
    if given.get("pe_mode") == "learnable":
        given.pop("transformer_max_tokens", None)
    for name, value in shaped.items():
        if given.get(name, value) != value:
            raise InputError(f"{name} is {given[name]} in the configuration and {value} in the arrays. Pass this model's configuration.")
    defaults = {"use_ms_embed": scalars, "mb_emb_dim": 32, "wne_use_in": False, "wne_use_instance_stats": False}
    defaults |= {"use_channel_emb_sum": False, "scale_weighted_sum": True}
    return {**defaults, **given, **shaped, **_heads(shape_of(arrays, "1.transformer.layers.0.fn.to_qkv.weight")[0] // 3, given)}


def check_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an official configuration that are used.

    Raises:
        InputError: a setting has a wrong type or is out of range.
    """
    given = {name: config[name] for name in SETTINGS if name in config}
    for name, value in given.items():
        kind = SETTINGS[name]
        if isinstance(kind, tuple):
            if value not in kind:
                raise InputError(f"{name} is {value!r} in the configuration. It must be one of {', '.join(kind)}.")
            continue
        valid = isinstance(value, bool) if kind is bool else isinstance(value, (int, float)) and not isinstance(value, bool)
        if not valid or (kind is int and (value != int(value) or value < 1)) or (kind is float and not 0 <= value < 1):
            accepted = {int: "a whole number above 0", bool: "true or false", float: "a number from 0 to below 1"}[kind]
            raise InputError(f"{name} is {value!r} in the configuration. It must be {accepted}.")
    return {name: value if isinstance(value, str) else SETTINGS[name](value) for name, value in given.items()}


def read_official_config(path: str | os.PathLike) -> dict[str, Any]:
    """Return the settings of an official JSON file that are used.

    Raises:
        InputError: the file cannot be read, is not a JSON object, or has none of these settings.
    """
    try:
        config = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}). Pass the official JSON file of the checkpoint.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file. Pass the official configuration of the checkpoint.") from error
    settings = check_settings(config) if isinstance(config, dict) else {}
    if not settings:
        raise InputError(f"{path} has none of the official settings ({', '.join(SETTINGS)}). Pass the configuration of the checkpoint.")
    return settings


def _heads(inner: int, given: Mapping[str, Any]) -> dict[str, int]:
    """Return number and width of heads from their product and what is given."""
    heads = given.get("transformer_heads", inner // given.get("transformer_head_dim", OFFICIAL_HEAD_DIM))
    dim = given.get("transformer_head_dim", inner // max(heads, 1))
    if heads * dim != inner:
        known = "transformer_heads" in given or "transformer_head_dim" in given
        problem = f"{heads} heads of {dim} are given" if known else f"is not divisible by the official head width {OFFICIAL_HEAD_DIM}"
        raise InputError(f"The attention is {inner} wide and {problem}. Pass the number of heads (transformer_heads).")
    return {"transformer_heads": heads, "transformer_head_dim": dim}


def is_byol(mapping: Mapping[str, Any]) -> bool:
    """Return whether a state is of BYOL: of an online and a target network."""
    return any(name.startswith("backbone.") for name in mapping)


def arrays_below(mapping: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names start with a prefix, without the prefix."""
    return {name.removeprefix(prefix): array for name, array in mapping.items() if name.startswith(prefix)}


def shape_of(arrays: Mapping[str, np.ndarray], name: str, *, axes: int = 2) -> tuple[int, ...]:
    """Return the shape of an array; raise InputError if it is missing or has another number of axes."""
    if name not in arrays:
        raise InputError(f"The state has no {name}. Pass the official state_dict of a wne + wint model.")
    if np.ndim(arrays[name]) != axes:
        raise InputError(f"{name} has shape {np.shape(arrays[name])} but must have {axes} axes. Pass the official state_dict.")
    return np.shape(arrays[name])
