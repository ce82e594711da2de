"""Weights of the official PyTorch implementation, as Flax variables."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from nutime_jax.errors import InputError
from nutime_jax.models.encoder import NuTimeEncoder
from nutime_jax.models.heads import Classifier, SiameseNetwork

# Patterns of PyTorch names below `backbone.`, and where their arrays live here. In a block of six modules the first is
# the attention and the fourth the MLP; the others hold no weights.
_LINEAR = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "scale", "bias": "bias"}
_MODULES = [
    (r"0\.window_embedding", ("embedding", "shape"), _LINEAR),
    (r"0\.window_embed_norm", ("embedding", "shape_norm"), _NORM),
    (r"0\.multi_bias_encoder", ("embedding", "nme"), {"ws": "weight", "bs": "bias"}),
    (r"0\.ms_embed_fc\.0", ("embedding", "merge"), _LINEAR),
    (r"0\.ms_embed_fc\.1", ("embedding", "merge_norm"), _NORM),
    (r"0\.channel_embedding\.0", ("embedding", "fusion"), _LINEAR),
    (r"0\.channel_embedding\.1", ("embedding", "fusion_norm"), _NORM),
    (r"1", (), {"cls_token": "cls"}),
    (r"1\.norm", ("norm",), _NORM),
    (r"1\.transformer\.layers\.(\d+)\.norm", ("block", "norm"), _NORM),
    (r"1\.transformer\.layers\.(\d+)\.fn\.to_qkv", ("block", "attention", "qkv"), _LINEAR),
    (r"1\.transformer\.layers\.(\d+)\.fn\.to_out\.0", ("block", "attention", "out"), _LINEAR),
    (r"1\.transformer\.layers\.(\d+)\.fn\.layers\.0", ("block", "mlp", "in"), _LINEAR),
    (r"1\.transformer\.layers\.(\d+)\.fn\.layers\.3", ("block", "mlp", "out"), _LINEAR),
]
_HEAD = [(r"0", ("in",), _LINEAR), (r"1", ("norm",), {**_NORM, "running_mean": "mean", "running_var": "var"}), (r"3", ("out",), _LINEAR)]
_BUFFERS = {"0.multi_bias_encoder.scales", "0.multi_bias_encoder.locs", "1.pos_embed"}


def from_torch_state(mapping: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Turns a PyTorch state into a module of this library and its variables.

    Args:
        mapping: PyTorch names -> arrays. Either the layout of a network (`0.` window embedding, `1.` Transformer with a
            linear `1.fc`) or that of BYOL (`backbone.`, `momentum_backbone.`, `predictor.`).
        config: the release's configuration: window_size, window_emb_dim, transformer_depth, transformer_heads,
            transformer_head_dim, transformer_mlp_dim, transformer_max_tokens, mb_emb_dim, wne_use_in,
            wne_use_instance_stats, use_ms_embed, use_channel_emb_sum, scale_weighted_sum, and dropout (0 when absent).

    Returns:
        For a network: (Classifier, its variables), or (NuTimeEncoder, its variables) when there is no `1.fc`.
        For BYOL: (SiameseNetwork, {"online": variables, "target": variables}).

    Raises:
        InputError: a name that is not of these layouts, or an array that is missing.
    """
    mapping = {name: np.asarray(array) for name, array in mapping.items()}
    if any(name.startswith("backbone.") for name in mapping):
        model, variables = _byol(mapping, config)
        _check_fit(model, variables["online"], (2, 2, 1, model.encoder.window))
        return model, variables
    model, variables = _network(mapping, config)
    fusion = mapping.get("0.channel_embedding.0.weight")
    channels = 1 if fusion is None else fusion.shape[1] // fusion.shape[0]
    _check_fit(model, variables, (1, channels, config["window_size"]))
    return model, variables


def _check_fit(model: nn.Module, variables: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Refuses variables that are not exactly those that the model asks for."""
    asked = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape)), sep="/")
    given = flatten_dict(variables, sep="/")
    for name in sorted(asked.keys() | given.keys()):
        if name not in given or name not in asked:
            state = "is missing from the state" if name not in given else "has no place in the model of this configuration"
            raise InputError(f"{name} {state}; pass the state_dict and the configuration of one and the same model")
        if given[name].shape != asked[name].shape:
            raise InputError(f"{name} has shape {given[name].shape} where the configuration asks for {asked[name].shape}")


def _network(mapping: dict[str, np.ndarray], config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    if config["use_channel_emb_sum"]:  # the release makes the fusion all the same, and never uses it
        mapping = {name: array for name, array in mapping.items() if not name.startswith("0.channel_embedding.")}
    encoder = _encoder(mapping, config)
    head = {name: mapping.pop(f"1.fc.{name}") for name in ("weight", "bias") if f"1.fc.{name}" in mapping}
    variables = _encoder_variables(mapping)
    if not head:
        return encoder, variables
    model = Classifier(encoder, classes=len(head["bias"]))
    params = {"encoder": variables["params"], "head": {"kernel": head["weight"].T, "bias": head["bias"]}}
    return model, {"params": params, "constants": {"encoder": variables["constants"]}}


def _byol(mapping: dict[str, np.ndarray], config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    online = _siamese_variables(mapping, "backbone.", "predictor.")
    target = _siamese_variables(mapping, "momentum_backbone.", None)
    dim, hidden = mapping["backbone.1.fc.3.weight"].shape
    model = SiameseNetwork(_encoder(_below(mapping, "backbone."), config), hidden=hidden, dim=dim)
    return model, {"online": online, "target": target}


def _siamese_variables(mapping: dict[str, np.ndarray], backbone: str, predictor: str | None) -> dict[str, Any]:
    arrays = _below(mapping, backbone)
    heads = {"projector": _below(arrays, "1.fc.")}
    if predictor is not None:
        heads["predictor"] = _below(mapping, predictor)
    encoder = _encoder_variables({name: array for name, array in arrays.items() if not name.startswith("1.fc.")})
    flat = {name: _flat(head, _HEAD) for name, head in heads.items()}
    statistics = {name: {k: v for k, v in head.items() if k[-1] in ("mean", "var")} for name, head in flat.items()}
    params = {name: {k: v for k, v in head.items() if k[-1] not in ("mean", "var")} for name, head in flat.items()}
    return {
        "params": {"encoder": encoder["params"], **{name: unflatten_dict(head) for name, head in params.items()}},
        "batch_stats": {name: unflatten_dict(head) for name, head in statistics.items()},
        "constants": {"encoder": encoder["constants"]},
    }


def _encoder(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> NuTimeEncoder:
    statistics = "instance" if config["wne_use_instance_stats"] else "window"
    scales = mapping.get("0.multi_bias_encoder.scales", np.zeros(0))
    return NuTimeEncoder(
        window=config["window_size"],
        width=config["window_emb_dim"],
        depth=config["transformer_depth"],
        heads=config["transformer_heads"],
        head_dim=config["transformer_head_dim"],
        mlp_dim=config["transformer_mlp_dim"],
        dropout=config.get("dropout", 0.0),
        max_tokens=config["transformer_max_tokens"],
        scales=tuple(float(scale) for scale in scales),
        scale_dim=config["mb_emb_dim"],
        weighted_scales=config["scale_weighted_sum"],
        normalisation="instance" if config["wne_use_in"] else "window",
        statistics=statistics if config["use_ms_embed"] else "none",
        fusion="sum" if config["use_channel_emb_sum"] else "linear",
    )


def _encoder_variables(mapping: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "1.pos_embed" not in mapping:
        raise InputError("the state has no 1.pos_embed; only encoders with fixed positions can be converted")
    arrays = {name: array for name, array in mapping.items() if name not in _BUFFERS}
    return {
        "params": unflatten_dict(_flat(arrays, _MODULES)),
        "constants": {"positions": mapping["1.pos_embed"][0]},
    }


def _flat(mapping: Mapping[str, np.ndarray], modules) -> dict[tuple[str, ...], np.ndarray]:
    flat = {}
    for name, array in mapping.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        path, names = _locate(module, modules)
        if path is None or leaf not in names:
            raise InputError(f"{name!r} is no array of a NuTime network; pass the release's state_dict of a wne + wint model")
        flat[(*path, names[leaf])] = _to_kernel(array) if names[leaf] == "kernel" else array
    return flat


def _locate(module: str, modules) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    for pattern, path, names in modules:
        if match := re.fullmatch(pattern, module):
            if match.groups():
                block, place = divmod(int(match[1]), 6)
                norm = "attention_norm" if place == 0 else "mlp_norm"
                path = (f"block_{block}", *(norm if part == "norm" else part for part in path[1:]))
            return path, names
    return None, {}


def _to_kernel(weight: np.ndarray) -> np.ndarray:
    """(out, in), or the (out, 1, in) of a convolution with one input channel -> (in, out)."""
    return weight.reshape(len(weight), -1).T


def _below(mapping: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in mapping.items() if name.startswith(prefix)}
