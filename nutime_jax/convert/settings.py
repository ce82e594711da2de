"""Settings of the release: read from its files, checked, and inferred from the arrays of a state."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nutime_jax.convert.states import arrays_below, is_byol, shape_of
from nutime_jax.errors import InputError

RELEASED_HEAD_DIM = 64
ABLATIONS = ("wne_use_in", "wne_use_instance_stats", "use_channel_emb_sum", "scale_weighted_sum")
"""Settings that leave no trace in the arrays."""
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
}
"""What counts in a configuration of the release, by its names there."""
SHAPED = ("window_size", "window_emb_dim", "transformer_depth", "transformer_mlp_dim", "transformer_max_tokens", "mb_emb_dim")
"""Settings that shapes of arrays tell beyond doubt."""


def infer_config(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The release's configuration of a state, by its arrays where they tell, else as given, else as released.

    Shapes tell all of `SHAPED`, whether mean and std are embedded, and the product of heads and head_dim. Heads are
    taken to be RELEASED_HEAD_DIM wide, and ABLATIONS to be as released, unless they are given.

    Raises:
        InputError: an array that is needed is missing, a setting contradicts the arrays or is of another type, or the
            number of heads is open.
    """
    given = check_settings(config or {})
    arrays = arrays_below(mapping, "backbone.") if is_byol(mapping) else mapping
    if "1.pos_embed" not in arrays:
        raise InputError("the state has no 1.pos_embed; only encoders with fixed positions can be converted")
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
    for name, value in shaped.items():
        if given.get(name, value) != value:
            raise InputError(
                f"{name} is {given[name]} in the configuration and {value} by the arrays; give the configuration of this model"
            )
    released = {"use_ms_embed": scalars, "mb_emb_dim": 32, "wne_use_in": False, "wne_use_instance_stats": False}
    released |= {"use_channel_emb_sum": False, "scale_weighted_sum": True}
    return {**released, **given, **shaped, **_heads(shape_of(arrays, "1.transformer.layers.0.fn.to_qkv.weight")[0] // 3, given)}


def check_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that count in a configuration of the release, which holds many others.

    Raises:
        InputError: one has another type, or no possible value.
    """
    given = {name: config[name] for name in SETTINGS if name in config}
    for name, value in given.items():
        kind = SETTINGS[name]
        right = isinstance(value, bool) if kind is bool else isinstance(value, (int, float)) and not isinstance(value, bool)
        if not right or (kind is int and (value != int(value) or value < 1)) or (kind is float and not 0 <= value < 1):
            what = {int: "a whole number above 0", bool: "true or false", float: "a number from 0 to below 1"}[kind]
            raise InputError(f"{name} is {value!r} in the configuration; it has to be {what}")
    return {name: SETTINGS[name](value) for name, value in given.items()}


def read_release_config(path: str | os.PathLike) -> dict[str, Any]:
    """The settings that count in a JSON file of the release.

    Raises:
        InputError: it cannot be read, is no JSON object, or has none of these settings.
    """
    try:
        config = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); give the release's JSON file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON file; give the release's configuration of the checkpoint") from error
    settings = check_settings(config) if isinstance(config, dict) else {}
    if not settings:
        raise InputError(f"{path} has none of the release's settings ({', '.join(SETTINGS)}); give the configuration of the checkpoint")
    return settings


def _heads(inner: int, given: Mapping[str, Any]) -> dict[str, int]:
    """The product of heads and their width is known; one of the two has to come from elsewhere."""
    heads = given.get("transformer_heads", inner // given.get("transformer_head_dim", RELEASED_HEAD_DIM))
    dim = given.get("transformer_head_dim", inner // max(heads, 1))
    if heads * dim != inner:
        known = "transformer_heads" in given or "transformer_head_dim" in given
        what = f"{heads} heads of {dim} are given" if known else f"heads of {RELEASED_HEAD_DIM}, as released, do not divide it"
        raise InputError(f"the attention is {inner} wide and {what}; give the number of heads (transformer_heads)")
    return {"transformer_heads": heads, "transformer_head_dim": dim}
