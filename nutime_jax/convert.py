"""Weights of the official PyTorch implementation, as Flax variables, and back.

A state is a mapping of PyTorch names to arrays (`torch_files` reads it from files), in one of three layouts: that of BYOL
(`backbone.`, `momentum_backbone.`, `predictor.`), of a classifier (`0.` window embedding, `1.` Transformer with a linear
`1.fc`), or of an encoder (the same without `1.fc`).
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from nutime_jax.encoder import Encoder, load_encoder, shipped_encoders
from nutime_jax.errors import InputError
from nutime_jax.models.encoder import NuTimeEncoder
from nutime_jax.models.heads import Classifier, SiameseNetwork
from nutime_jax.sealed import is_sealed
from nutime_jax.train.checkpoint import find_checkpoint, read_about, read_arrays
from nutime_jax.train.state import build_network

NETWORKS = ("online", "momentum")
RELEASED_HEAD_DIM, RELEASED_DROPOUT, RELEASED_WINDOWS, MAX_LENGTH = 64, 0.1, 32, 4096
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
    "dropout": float,
}
"""What counts in a configuration of the release, by its names there."""
SHAPED = ("window_size", "window_emb_dim", "transformer_depth", "transformer_mlp_dim", "transformer_max_tokens", "mb_emb_dim")
"""Settings that shapes of arrays tell beyond doubt."""

# Arrays of a PyTorch module -> their names here.
_LINEAR = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "scale", "bias": "bias"}
_EMBEDDING = [
    ("0.window_embedding", ("embedding", "shape"), _LINEAR),
    ("0.window_embed_norm", ("embedding", "shape_norm"), _NORM),
    ("0.multi_bias_encoder", ("embedding", "nme"), {"ws": "weight", "bs": "bias"}),
    ("0.ms_embed_fc.0", ("embedding", "merge"), _LINEAR),
    ("0.ms_embed_fc.1", ("embedding", "merge_norm"), _NORM),
    ("0.channel_embedding.0", ("embedding", "fusion"), _LINEAR),
    ("0.channel_embedding.1", ("embedding", "fusion_norm"), _NORM),
    ("1", (), {"cls_token": "cls"}),
    ("1.norm", ("norm",), _NORM),
]
_HEAD = [("0", ("in",), _LINEAR), ("1", ("norm",), {**_NORM, "running_mean": "mean", "running_var": "var"}), ("3", ("out",), _LINEAR)]
_BUFFERS = {"0.multi_bias_encoder.scales", "0.multi_bias_encoder.locs", "1.pos_embed"}
_FUSION = "0.channel_embedding."
_COUNTER = "1.num_batches_tracked"


def from_torch_state(mapping: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Turns a PyTorch state into a module of this library and its variables.

    Args:
        mapping: PyTorch names -> arrays.
        config: the release's configuration, or as much of it as is known (see `infer_config`); dropout is 0 when absent.

    Returns:
        For a network: (Classifier, its variables), or (NuTimeEncoder, its variables) when there is no `1.fc`.
        For BYOL: (SiameseNetwork, {"online": variables, "target": variables}).
        A channel fusion beside `use_channel_emb_sum`, which the release makes and never uses, is kept in a collection
        of its own, `unused`.

    Raises:
        InputError: a name that is not of these layouts, an array that is missing, or a configuration of another model.
    """
    mapping = {name: np.asarray(array) for name, array in mapping.items()}
    config = infer_config(mapping, config)
    if _is_byol(mapping):
        model, variables = _byol(mapping, config)
        _check_fit(model, variables["online"], (2, 2, 1, model.encoder.window))
        _check_fit(model, variables["target"], (2, 2, 1, model.encoder.window), method="project")
        return model, variables
    model, variables = _network(mapping, config)
    fusion = mapping.get(f"{_FUSION}0.weight")
    channels = 1 if fusion is None else fusion.shape[1] // fusion.shape[0]
    _check_fit(model, variables, (1, channels, config["window_size"]))
    return model, variables


def to_torch_state(module: nn.Module, variables: Mapping[str, Any], *, batches: int = 0) -> dict[str, np.ndarray]:
    """The PyTorch state of a module, as the official implementation names and shapes it, buffers included.

    What `from_torch_state` made comes back bit for bit.

    Args:
        module: a NuTimeEncoder, a Classifier, or a SiameseNetwork.
        variables: its variables; {"online": …, "target": …} for a SiameseNetwork.
        batches: batches that BatchNorm has seen; PyTorch keeps count, and nothing depends on it.

    Raises:
        InputError: the official implementation has no such module.
    """
    if isinstance(module, SiameseNetwork):
        online, target = variables["online"], variables["target"]
        return {
            **_torch_backbone(module.encoder, online, "backbone.", batches),
            **_torch_backbone(module.encoder, target, "momentum_backbone.", batches),
            **_torch_head(online, "predictor", "predictor.", batches),
        }
    if isinstance(module, NuTimeEncoder):
        return _torch_encoder(module, variables)
    if not isinstance(module, Classifier) or (module.norm, module.channels, module.readout) != ("none", "fusion", "cls"):
        raise InputError("the official implementation has no such network; convert its encoder, or a Classifier with default options")
    head = variables["params"]["head"]
    return {
        **_torch_encoder(module.encoder, _of_encoder(variables)),
        "1.fc.weight": np.asarray(head["kernel"]).T,
        "1.fc.bias": np.asarray(head["bias"]),
    }


def infer_config(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The release's configuration of a state, by its arrays where they tell, else as given, else as released.

    Shapes tell all of `SHAPED`, whether mean and std are embedded, and the product of heads and head_dim. Heads are
    taken to be RELEASED_HEAD_DIM wide, and ABLATIONS to be as released, unless they are given.

    Raises:
        InputError: an array that is needed is missing, a setting contradicts the arrays or is of another type, or the
            number of heads is open.
    """
    given = check_settings(config or {})
    arrays = _below(mapping, "backbone.") if _is_byol(mapping) else mapping
    if "1.pos_embed" not in arrays:
        raise InputError("the state has no 1.pos_embed; only encoders with fixed positions can be converted")
    window, positions = _matrix(arrays, "0.window_embedding.weight", axes=3), _matrix(arrays, "1.pos_embed", axes=3)
    scalars = "0.multi_bias_encoder.ws" in arrays
    depth = sum(name.startswith("1.transformer.layers.") and name.endswith(".to_qkv.weight") for name in arrays)
    shaped = {
        "window_size": window[2],
        "window_emb_dim": window[0],
        "transformer_depth": depth,
        "transformer_mlp_dim": _matrix(arrays, "1.transformer.layers.3.fn.layers.0.weight")[0],
        "transformer_max_tokens": positions[1],
    }
    if scalars:
        _matrix(arrays, "0.multi_bias_encoder.scales", axes=1)
        shaped["mb_emb_dim"] = _matrix(arrays, "0.multi_bias_encoder.ws")[1]
    for name, value in shaped.items():
        if given.get(name, value) != value:
            raise InputError(
                f"{name} is {given[name]} in the configuration and {value} by the arrays; give the configuration of this model"
            )
    released = {"use_ms_embed": scalars, "mb_emb_dim": 32, "wne_use_in": False, "wne_use_instance_stats": False}
    released |= {"use_channel_emb_sum": False, "scale_weighted_sum": True}
    return {**released, **given, **shaped, **_heads(_matrix(arrays, "1.transformer.layers.0.fn.to_qkv.weight")[0] // 3, given)}


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


class Twin(NamedTuple):
    """What tells whether a momentum network has followed its online network.

    In the release the moving average is made inside a forward pass; under DataParallel that happens to a replica, and
    is lost. The layer norms show it: they start at exactly 1 and 0, and no trained one stays there.

    arrays, equal: trained arrays, and how many are the same, to the bit, in both networks.
    norms: layer-norm arrays. untouched, online_untouched: how many of each network are still as they started.
    """

    arrays: int
    equal: int
    norms: int
    untouched: int
    online_untouched: int

    @property
    def verdict(self) -> str:
        """In words."""
        if self.equal == self.arrays:
            return f"the momentum network is a copy of the online network: all {self.arrays} arrays are equal"
        counts = f"{self.equal} of {self.arrays} arrays equal the online ones"
        if self.untouched == self.norms and self.online_untouched < self.norms:
            return (
                f"the momentum network never moved: its {self.norms} layer-norm arrays are exactly 1 and 0, as they started, "
                f"and {self.norms - self.online_untouched} of the online ones are not; {counts}"
            )
        if self.untouched == self.norms:
            return f"neither network has trained layer norms: nothing tells whether the momentum network moved; {counts}"
        return f"the momentum network moved: {self.norms - self.untouched} of its {self.norms} layer-norm arrays left 1 and 0; {counts}"


def compare_twin(mapping: Mapping[str, np.ndarray]) -> Twin | None:
    """Whether the momentum network of a BYOL state ever moved; None where there is none."""
    online, target = (_below(mapping, prefix) for prefix in ("backbone.", "momentum_backbone."))
    skipped = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name in target if name in online and name not in _BUFFERS and not name.endswith(skipped)]
    if not names:
        return None
    # Layer norms only: the statistics of the projector's BatchNorm move with every forward pass.
    starts = {name: 1 if name.endswith("weight") else 0 for name in names if "norm." in name or "embed_fc.1." in name}
    return Twin(
        arrays=len(names),
        equal=sum(np.array_equal(online[name], target[name]) for name in names),
        norms=len(starts),
        untouched=sum(bool(np.all(target[name] == start)) for name, start in starts.items()),
        online_untouched=sum(bool(np.all(online[name] == start)) for name, start in starts.items()),
    )


class Converted(NamedTuple):
    """An encoder out of a PyTorch state, and what was found.

    kind: "BYOL", "classifier" or "encoder".
    parameters: trained numbers of the encoder.
    assumed: settings that neither the arrays nor the configuration told, in words.
    left_out: arrays that are no part of the encoder, a word for each group.
    twin: whether the momentum network moved; None where there is none.
    """

    encoder: Encoder
    kind: str
    parameters: int
    assumed: tuple[str, ...]
    left_out: tuple[str, ...]
    twin: Twin | None


def encoder_from_torch(
    mapping: Mapping[str, Any], config: Mapping[str, Any] | None = None, *, which: str = "online", length: int | None = None
) -> Converted:
    """The encoder of a PyTorch state, ready to embed and to be saved; float32.

    The channel fusion of a multivariate state is kept in the weights, so that it comes back by `to_torch_state`; nothing
    else uses it: `Encoder.embed` encodes every channel alone, and fine-tuning draws a fusion of its own.

    Args:
        mapping, config: as in `from_torch_state`; dropout is as released when absent (fine-tuning uses it).
        which: network of a BYOL state, one of NETWORKS.
        length: points that every series is resized to; None is RELEASED_WINDOWS windows, or as many as there are
            positions for.

    Raises:
        InputError: as `from_torch_state`; or there is no such network or no such length.
    """
    mapping = {name: np.asarray(array) for name, array in mapping.items()}
    given = {"dropout": RELEASED_DROPOUT, **(config or {})}
    module, variables = from_torch_state(mapping, given)
    if which not in NETWORKS:
        raise InputError(f"network {which!r} is unknown; choose one of {', '.join(NETWORKS)}")
    if which == "momentum" and not isinstance(module, SiameseNetwork):
        raise InputError("the state has no momentum network, it is not BYOL's; take the online network, which is the only one")
    network = module if isinstance(module, NuTimeEncoder) else module.encoder
    if isinstance(module, SiameseNetwork):
        variables = variables["online" if which == "online" else "target"]
    kept = {kind: variables[kind] if module is network else variables[kind]["encoder"] for kind in ("params", "constants")}
    kept = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), kept)
    return Converted(
        encoder=Encoder(_encoder_config(network, length), kept),
        kind={SiameseNetwork: "BYOL", Classifier: "classifier", NuTimeEncoder: "encoder"}[type(module)],
        parameters=sum(array.size for array in jax.tree.leaves(kept["params"])),
        assumed=_assumed(network, config or {}),
        left_out=tuple(_left_out(module, variables, which)),
        twin=compare_twin(mapping),
    )


def torch_state_of(name_or_path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The PyTorch state of what this library wrote: an encoder's, of a shipped one or a folder of `Encoder.save`; BYOL's, of a
    workdir or a checkpoint.

    Raises:
        InputError: there is nothing of the kind, or it is damaged.
    """
    if is_sealed(name_or_path) or os.fspath(name_or_path) in shipped_encoders():
        encoder = load_encoder(name_or_path)
        return to_torch_state(encoder.network, encoder.variables)
    found = find_checkpoint(name_or_path)
    about = read_about(found)
    if (kind := about["config"]["objective"].get("kind", "byol")) != "byol":
        raise InputError(
            f"{name_or_path} was trained by {kind}, which the official code has not; save its encoder alone, by `Encoder.save`"
        )
    fields = read_arrays(found, ("params", "variables", "target_params", "target_variables"))
    online = {"params": fields["params"], **fields["variables"]}
    target = {"params": fields["target_params"], **fields["target_variables"]}
    # BatchNorm sees the two views of a step one after the other.
    return to_torch_state(build_network(ConfigDict(about["config"])), {"online": online, "target": target}, batches=2 * about["step"])


def _encoder_config(network: NuTimeEncoder, length: int | None) -> ConfigDict:
    windows = min(RELEASED_WINDOWS, network.max_tokens - 1)
    length = windows * network.window if length is None else length
    if length < 1 or length % network.window or length // network.window >= network.max_tokens:
        most = (network.max_tokens - 1) * network.window
        raise InputError(f"length {length} does not suit the encoder; choose a multiple of {network.window}, at most {most}")
    model = {
        field.name: getattr(network, field.name) for field in dataclasses.fields(network) if field.name not in ("parent", "name", "remat")
    }
    return ConfigDict(
        {
            "name": "converted",
            "seed": 0,
            "length": length,
            "matmul_precision": "highest",
            "model": model,
            "data": {"max_length": MAX_LENGTH},
        }
    )


def _assumed(network: NuTimeEncoder, config: Mapping[str, Any]) -> tuple[str, ...]:
    open_ones = {
        ("transformer_heads", "transformer_head_dim"): f"heads {network.head_dim} wide",
        ("wne_use_in",): "windows normalised one by one",
        ("wne_use_instance_stats",): "mean and std of each window",
        ("scale_weighted_sum",): "weighted scales",
        ("use_channel_emb_sum",): "channels fused by a linear layer",
        ("dropout",): f"dropout {network.dropout:g}",
    }
    return tuple(words for names, words in open_ones.items() if not any(name in config for name in names))


def _left_out(module: nn.Module, variables: Mapping[str, Any], which: str) -> Iterator[str]:
    if isinstance(module, SiameseNetwork):
        yield "projector and predictor" if which == "online" else "projector"
        yield f"the {next(one for one in NETWORKS if one != which)} network"
    elif isinstance(module, Classifier):
        yield f"the head of {module.classes} classes"
    if "unused" in variables:
        yield "a channel fusion that is never used"


def _is_byol(mapping: Mapping[str, Any]) -> bool:
    return any(name.startswith("backbone.") for name in mapping)


def _matrix(arrays: Mapping[str, np.ndarray], name: str, *, axes: int = 2) -> tuple[int, ...]:
    """The shape of an array that tells settings."""
    if name not in arrays:
        raise InputError(f"the state has no {name}; pass the release's state_dict of a wne + wint model")
    if np.ndim(arrays[name]) != axes:
        raise InputError(f"{name} has shape {np.shape(arrays[name])} where {axes} axes are due; pass the release's state_dict")
    return np.shape(arrays[name])


def _heads(inner: int, given: Mapping[str, Any]) -> dict[str, int]:
    """The product of heads and their width is known; one of the two has to come from elsewhere."""
    heads = given.get("transformer_heads", inner // given.get("transformer_head_dim", RELEASED_HEAD_DIM))
    dim = given.get("transformer_head_dim", inner // max(heads, 1))
    if heads * dim != inner:
        known = "transformer_heads" in given or "transformer_head_dim" in given
        what = f"{heads} heads of {dim} are given" if known else f"heads of {RELEASED_HEAD_DIM}, as released, do not divide it"
        raise InputError(f"the attention is {inner} wide and {what}; give the number of heads (transformer_heads)")
    return {"transformer_heads": heads, "transformer_head_dim": dim}


def _check_fit(model: nn.Module, variables: dict[str, Any], shape: tuple[int, ...], *, method: str = "__call__") -> None:
    """Refuses variables that are not exactly those that the model asks for."""
    asked = flatten_dict(jax.eval_shape(partial(model.init, method=method), jax.random.key(0), jnp.zeros(shape)), sep="/")
    given = flatten_dict({kind: tree for kind, tree in variables.items() if kind != "unused"}, sep="/")
    for name in sorted(asked.keys() | given.keys()):
        if name not in given or name not in asked:
            state = "is missing from the state" if name not in given else "has no place in the model of this configuration"
            raise InputError(f"{name} {state}; pass the state_dict and the configuration of one and the same model")
        if given[name].shape != asked[name].shape:
            raise InputError(f"{name} has shape {given[name].shape} where the configuration asks for {asked[name].shape}")


def _network(mapping: dict[str, np.ndarray], config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    encoder = _encoder(mapping, config)
    head = {name: mapping[f"1.fc.{name}"] for name in ("weight", "bias") if f"1.fc.{name}" in mapping}
    variables = _encoder_variables({name: array for name, array in mapping.items() if name.removeprefix("1.fc.") not in head}, config)
    if not head:
        return encoder, variables
    if len(head) < 2:
        raise InputError(f"the state has 1.fc.{next(iter(head))} alone; pass the release's state_dict as it is")
    model = Classifier(encoder, classes=len(head["bias"]))
    params = {"encoder": variables.pop("params"), "head": {"kernel": head["weight"].T, "bias": head["bias"]}}
    return model, {"params": params, **{kind: {"encoder": tree} for kind, tree in variables.items()}}


def _byol(mapping: dict[str, np.ndarray], config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    if foreign := [name for name in mapping if not name.startswith(("backbone.", "momentum_backbone.", "predictor."))]:
        raise InputError(f"{foreign[0]!r} is no array of BYOL; pass the release's state_dict of a wne + wint model")
    for prefix in ("momentum_backbone.", "predictor."):
        if not _below(mapping, prefix):
            raise InputError(f"the state has nothing of {prefix.rstrip('.')}; give all of BYOL, or an encoder's arrays without `backbone.`")
    online = _siamese_variables(mapping, "backbone.", "predictor.", config)
    target = _siamese_variables(mapping, "momentum_backbone.", None, config)
    dim, hidden = _matrix(mapping, "backbone.1.fc.3.weight")
    model = SiameseNetwork(_encoder(_below(mapping, "backbone."), config), hidden=hidden, dim=dim)
    return model, {"online": online, "target": target}


def _siamese_variables(mapping: dict[str, np.ndarray], backbone: str, predictor: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
    arrays = _below(mapping, backbone)
    heads = {"projector": _below(arrays, "1.fc.")}
    if predictor is not None:
        heads["predictor"] = _below(mapping, predictor)
    encoder = _encoder_variables({name: array for name, array in arrays.items() if not name.startswith("1.fc.")}, config)
    flat = {name: _flat(head, _places(_HEAD)) for name, head in heads.items()}
    statistics = {name: {k: v for k, v in head.items() if k[-1] in ("mean", "var")} for name, head in flat.items()}
    params = {name: {k: v for k, v in head.items() if k[-1] not in ("mean", "var")} for name, head in flat.items()}
    return {
        "params": {"encoder": encoder.pop("params"), **{name: unflatten_dict(head) for name, head in params.items()}},
        "batch_stats": {name: unflatten_dict(head) for name, head in statistics.items()},
        **{kind: {"encoder": tree} for kind, tree in encoder.items()},
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


def _encoder_variables(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
    if "1.pos_embed" not in mapping:
        raise InputError("the state has no 1.pos_embed; only encoders with fixed positions can be converted")
    places = _encoder_places(config["transformer_depth"])
    idle = _below(mapping, _FUSION) if config["use_channel_emb_sum"] else {}
    arrays = {name: array for name, array in mapping.items() if name not in _BUFFERS and name.removeprefix(_FUSION) not in idle}
    variables = {"params": unflatten_dict(_flat(arrays, places)), "constants": {"positions": mapping["1.pos_embed"][0]}}
    if idle:
        variables["unused"] = unflatten_dict(_flat({f"{_FUSION}{name}": array for name, array in idle.items()}, places))
    return variables


def _flat(mapping: Mapping[str, np.ndarray], places: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], np.ndarray]:
    flat = {}
    for name, array in mapping.items():
        if name == _COUNTER:
            continue
        if name not in places:
            raise InputError(f"{name!r} is no array of a NuTime network; pass the release's state_dict of a wne + wint model")
        flat[places[name]] = _to_kernel(array) if places[name][-1] == "kernel" else array
    return flat


def _torch_backbone(encoder: NuTimeEncoder, variables: Mapping[str, Any], prefix: str, batches: int) -> dict[str, np.ndarray]:
    arrays = _torch_encoder(encoder, _of_encoder(variables)) | _torch_head(variables, "projector", "1.fc.", batches)
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _torch_head(variables: Mapping[str, Any], head: str, prefix: str, batches: int) -> dict[str, np.ndarray]:
    arrays = {**flatten_dict(variables["params"][head]), **flatten_dict(variables["batch_stats"][head])}
    state = {name: _from_flat(arrays[path], path) for name, path in _places(_HEAD).items() if path in arrays}
    return {f"{prefix}{name}": array for name, array in {**state, _COUNTER: np.asarray(batches, np.int64)}.items()}


def _torch_encoder(encoder: NuTimeEncoder, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {**flatten_dict(variables["params"]), **flatten_dict(variables.get("unused", {}))}
    state = {name: _from_flat(arrays[path], path) for name, path in _encoder_places(encoder.depth).items() if path in arrays}
    state["0.window_embedding.weight"] = state["0.window_embedding.weight"][:, None]  # there, a convolution with one input channel
    if encoder.statistics != "none":
        state["0.multi_bias_encoder.scales"] = np.asarray(encoder.scales, state["0.multi_bias_encoder.ws"].dtype)
        state["0.multi_bias_encoder.locs"] = np.zeros(1, np.int64)
    return {**state, "1.pos_embed": np.asarray(variables["constants"]["positions"])[None]}


def _of_encoder(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: tree["encoder"] for kind, tree in variables.items() if "encoder" in tree}


def _encoder_places(depth: int) -> dict[str, tuple[str, ...]]:
    """Where the arrays of an encoder live here, by their PyTorch names."""
    return _places([*_EMBEDDING, *(module for block in range(depth) for module in _block_modules(block))])


def _block_modules(block: int) -> Iterator[tuple[str, tuple[str, ...], dict[str, str]]]:
    """In a block of six modules the first is the attention and the fourth the MLP; the others hold no weights."""
    attention, mlp = (f"1.transformer.layers.{6 * block + place}" for place in (0, 3))
    here = f"block_{block}"
    yield f"{attention}.norm", (here, "attention_norm"), _NORM
    yield f"{attention}.fn.to_qkv", (here, "attention", "qkv"), _LINEAR
    yield f"{attention}.fn.to_out.0", (here, "attention", "out"), _LINEAR
    yield f"{mlp}.norm", (here, "mlp_norm"), _NORM
    yield f"{mlp}.fn.layers.0", (here, "mlp", "in"), _LINEAR
    yield f"{mlp}.fn.layers.3", (here, "mlp", "out"), _LINEAR


def _places(modules) -> dict[str, tuple[str, ...]]:
    return {f"{module}.{theirs}": (*path, ours) for module, path, leaves in modules for theirs, ours in leaves.items()}


def _to_kernel(weight: np.ndarray) -> np.ndarray:
    """(out, in), or the (out, 1, in) of a convolution with one input channel -> (in, out)."""
    return weight.reshape(len(weight), -1).T


def _from_flat(array: Any, path: tuple[str, ...]) -> np.ndarray:
    array = np.asarray(array)
    return array.T if path[-1] == "kernel" else array


def _below(mapping: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in mapping.items() if name.startswith(prefix)}
