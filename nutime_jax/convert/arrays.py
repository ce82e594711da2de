"""Arrays of a PyTorch state as variables of a module, and back: their names, their places and their shapes."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from nutime_jax.config import ModelConfig
from nutime_jax.convert.settings import infer_config
from nutime_jax.convert.states import arrays_below, is_byol, shape_of
from nutime_jax.errors import InputError
from nutime_jax.models.heads import Classifier, SiameseNetwork
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.scalar_encoders import rescaled_scales

# Arrays of a PyTorch module -> their names here.
_LINEAR = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "scale", "bias": "bias"}
_EMBEDDING = [
    ("0.window_embedding", ("embedding", "shape"), _LINEAR),
    ("0.window_embed_norm", ("embedding", "shape_norm"), _NORM),
    ("0.multi_bias_encoder", ("embedding", "nme"), {"ws": "weight", "bs": "bias", "loc_emb": "location"}),
    ("0.ms_embed_fc.0", ("embedding", "merge"), _LINEAR),
    ("0.ms_embed_fc.1", ("embedding", "merge_norm"), _NORM),
    ("0.channel_embedding.0", ("embedding", "fusion"), _LINEAR),
    ("0.channel_embedding.1", ("embedding", "fusion_norm"), _NORM),
    ("1", (), {"cls_token": "cls"}),
    ("1.norm", ("norm",), _NORM),
]
_HEAD = [("0", ("in",), _LINEAR), ("1", ("norm",), {**_NORM, "running_mean": "mean", "running_var": "var"}), ("3", ("out",), _LINEAR)]
BUFFERS = {"0.multi_bias_encoder.scales", "0.multi_bias_encoder.locs", "1.pos_embed"}
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
    if is_byol(mapping):
        model, variables = _byol(mapping, config)
        _check_fit(model, variables["online"], (2, 2, 1, model.encoder.config.window_size))
        _check_fit(model, variables["target"], (2, 2, 1, model.encoder.config.window_size), method="project")
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
    encoder = module if isinstance(module, NuTimeEncoder) else getattr(module, "encoder", None)
    if encoder is not None and (foreign := _foreign(encoder.config)):
        raise InputError(f"the official implementation has no encoder with {foreign}; convert one that has the released value")
    if isinstance(module, SiameseNetwork):
        online, target = variables["online"], variables["target"]
        return {
            **_torch_backbone(module.encoder, online, "backbone.", batches),
            **_torch_backbone(module.encoder, target, "momentum_backbone.", batches),
            **_torch_head(online, "predictor", "predictor.", batches),
        }
    if isinstance(module, NuTimeEncoder):
        return _torch_encoder(module, variables)
    if not isinstance(module, Classifier) or (module.norm, module.channels, module.pooling) != ("none", "fusion", "cls"):
        raise InputError("the official implementation has no such network; convert its encoder, or a Classifier with default options")
    head = variables["params"]["head"]
    return {
        **_torch_encoder(module.encoder, _of_encoder(variables)),
        "1.fc.weight": np.asarray(head["kernel"]).T,
        "1.fc.bias": np.asarray(head["bias"]),
    }


def _foreign(model: ModelConfig) -> str:
    """An option that the official implementation does not have, and its value; empty if there is none."""
    names = [
        "pos_embedding",
        "stride",
        "dense_stride",
        "extra_window_sizes",
        "backbone",
        *(("scalar_encoder", "scale_eps") if model.window_stats != "none" else ()),
    ]
    options = {name: getattr(model, name) for name in names}
    if options["stride"] == model.window_size:
        options["stride"] = 0
    return next((f"{name} {value!r}" for name, value in options.items() if value != getattr(ModelConfig, name)), "")


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
        if not arrays_below(mapping, prefix):
            raise InputError(f"the state has nothing of {prefix.rstrip('.')}; give all of BYOL, or an encoder's arrays without `backbone.`")
    online = _siamese_variables(mapping, "backbone.", "predictor.", config)
    target = _siamese_variables(mapping, "momentum_backbone.", None, config)
    dim, hidden = shape_of(mapping, "backbone.1.fc.3.weight")
    both = [arrays_below(mapping, prefix).get("0.multi_bias_encoder.scales") for prefix in ("backbone.", "momentum_backbone.")]
    if not np.array_equal(*both):
        raise InputError("the scales of the two networks differ, which were trained; convert the arrays of one of them, without its prefix")
    model = SiameseNetwork(_encoder(arrays_below(mapping, "backbone."), config), hidden_dim=hidden, output_dim=dim)
    return model, {"online": online, "target": target}


def _siamese_variables(mapping: dict[str, np.ndarray], backbone: str, predictor: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
    arrays = arrays_below(mapping, backbone)
    heads = {"projector": arrays_below(arrays, "1.fc.")}
    if predictor is not None:
        heads["predictor"] = arrays_below(mapping, predictor)
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
    locations = mapping.get("0.multi_bias_encoder.locs", np.zeros(1))
    if "0.multi_bias_encoder.loc_emb" in mapping:
        if not config.get("loc_weighted_sum", True):
            raise InputError("loc_weighted_sum is false beside vectors of locations; only locations that are weighed can be converted")
    elif locations.any() or len(locations) != 1:
        raise InputError(f"the locations are {locations.tolist()}, and have no vectors; only those with vectors can be converted")
    else:
        locations = ()
    model = ModelConfig(
        window_size=config["window_size"],
        width=config["window_emb_dim"],
        depth=config["transformer_depth"],
        num_heads=config["transformer_heads"],
        head_dim=config["transformer_head_dim"],
        mlp_dim=config["transformer_mlp_dim"],
        dropout=config.get("dropout", 0.0),
        max_tokens=config["transformer_max_tokens"],
        scales=tuple(float(scale) for scale in scales),
        scale_dim=config["mb_emb_dim"],
        scale_weighting=config["scale_weighted_sum"],
        locations=tuple(float(location) for location in locations),
        normalisation="instance" if config["wne_use_in"] else "window",
        window_stats=statistics if config["use_ms_embed"] else "none",
        channel_fusion="sum" if config["use_channel_emb_sum"] else "linear",
    )
    return NuTimeEncoder(model)


def _encoder_variables(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
    if "1.pos_embed" not in mapping:
        raise InputError("the state has no 1.pos_embed; only encoders with fixed positions can be converted")
    places = _encoder_places(config["transformer_depth"])
    idle = arrays_below(mapping, _FUSION) if config["use_channel_emb_sum"] else {}
    arrays = {name: array for name, array in mapping.items() if name not in BUFFERS and name.removeprefix(_FUSION) not in idle}
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
    state = {name: _from_flat(arrays[path], path) for name, path in _encoder_places(encoder.config.depth).items() if path in arrays}
    state["0.window_embedding.weight"] = state["0.window_embedding.weight"][:, None]  # there, a convolution with one input channel
    if encoder.config.window_stats != "none":
        scales, dtype = encoder.config.scales, state["0.multi_bias_encoder.ws"].dtype
        if encoder.config.learnable_scales:  # there, scales are no parameters: what was learnt of them comes back as fixed
            scales = rescaled_scales(jnp.asarray(scales, jnp.float32), jnp.asarray(arrays["embedding", "nme", "log_stretch"]))
        state["0.multi_bias_encoder.scales"] = np.asarray(scales, dtype)
        state["0.multi_bias_encoder.locs"] = (
            np.asarray(encoder.config.locations, dtype) if encoder.config.locations else np.zeros(1, np.int64)
        )
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
