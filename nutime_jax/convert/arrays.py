"""Arrays of a PyTorch state as variables of a Flax module, and back: names, tree paths and shapes."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from nutime_jax.config import ModelConfig
from nutime_jax.convert.settings import arrays_below, infer_config, is_byol, shape_of
from nutime_jax.errors import InputError
from nutime_jax.models.heads import Classifier, SiameseNetwork
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.scalar_encoders import rescaled_scales

# PyTorch array -> Flax parameter, for each kind of module.
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
    ("1", (), {"cls_token": "cls", "mask_token": "mask_token"}),
    ("1.norm", ("norm",), _NORM),
]
_HEAD = [("0", ("in",), _LINEAR), ("1", ("norm",), {**_NORM, "running_mean": "mean", "running_var": "var"}), ("3", ("out",), _LINEAR)]
BUFFERS = {"0.multi_bias_encoder.scales", "0.multi_bias_encoder.locs", "1.pos_embed"}
OFFICIAL_MASK_RATIO = 0.2
_FUSION = "0.channel_embedding."
_COUNTER = "1.num_batches_tracked"


def from_torch_state(mapping: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Convert a PyTorch state to a module of this library and its variables.

    Args:
        mapping: PyTorch names -> arrays.
        config: official configuration, complete or in part (see `infer_config`); dropout is 0 if absent.

    Returns:
        For a network: (Classifier, variables), or (NuTimeEncoder, variables) without `1.fc`.
        For BYOL: (SiameseNetwork, {"online": variables, "target": variables}).
        With `use_channel_emb_sum` the official implementation has a channel fusion that it never uses; its arrays are in a
        separate collection, `unused`.

    Raises:
        InputError: a name is not of these layouts, an array is missing, or the configuration is of another model.
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
    """Return the PyTorch state of a module, with the official names and shapes, including buffers.

    `to_torch_state` inverts `from_torch_state` bit for bit.

    Args:
        module: a NuTimeEncoder, a Classifier, or a SiameseNetwork.
        variables: its variables; {"online": …, "target": …} for a SiameseNetwork.
        batches: number of batches that BatchNorm was trained on; PyTorch counts them but does not use the count.

    Raises:
        InputError: the official implementation has no such module.
    """
    encoder = module if isinstance(module, NuTimeEncoder) else getattr(module, "encoder", None)
    if encoder is not None and (option := _unsupported_option(encoder.config)):
        raise InputError(f"The official implementation has no encoder with {option}. Convert one with the official default.")
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
        raise InputError("The official implementation has no such network. Convert its encoder, or a Classifier with default options.")
    head = variables["params"]["head"]
    return {
        **_torch_encoder(module.encoder, _of_encoder(variables)),
        "1.fc.weight": np.asarray(head["kernel"]).T,
        "1.fc.bias": np.asarray(head["bias"]),
    }


def _unsupported_option(model: ModelConfig) -> str:
    """Return an option that the official implementation lacks, with its value, or an empty string."""
    names = [
        "stride",
        "dense_stride",
        "extra_window_sizes",
        "backbone",
        *(("scalar_encoder", "scale_eps") if model.window_stats != "none" else ()),
    ]
    options = {name: getattr(model, name) for name in names}
    if options["stride"] == model.window_size:
        options["stride"] = 0
    if model.pos_embedding not in ("sinusoidal", "learned"):
        return f"pos_embedding {model.pos_embedding!r}"
    return next((f"{name} {value!r}" for name, value in options.items() if value != getattr(ModelConfig, name)), "")


def _check_fit(model: nn.Module, variables: dict[str, Any], shape: tuple[int, ...], *, method: str = "__call__") -> None:
    """Check that names and shapes of variables are exactly those of the model."""
    expected = flatten_dict(jax.eval_shape(partial(model.init, method=method), jax.random.key(0), jnp.zeros(shape)), sep="/")
    given = flatten_dict({kind: tree for kind, tree in variables.items() if kind != "unused"}, sep="/")
    for name in sorted(expected.keys() | given.keys()):
        if name not in given or name not in expected:
            problem = "is missing from the state" if name not in given else "does not exist in the model of this configuration"
            raise InputError(f"{name} {problem}. Pass the state_dict and the configuration of the same model.")
        if given[name].shape != expected[name].shape:
            raise InputError(f"{name} has shape {given[name].shape}; the configuration requires {expected[name].shape}.")


def _network(mapping: dict[str, np.ndarray], config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    encoder = _encoder(mapping, config)
    head = {name: mapping[f"1.fc.{name}"] for name in ("weight", "bias") if f"1.fc.{name}" in mapping}
    variables = _encoder_variables({name: array for name, array in mapping.items() if name.removeprefix("1.fc.") not in head}, config)
    if not head:
        return encoder, variables
    if len(head) < 2:
        raise InputError(f"The state has 1.fc.{next(iter(head))} only. Pass the official state_dict unchanged.")
    model = Classifier(encoder, classes=len(head["bias"]))
    params = {"encoder": variables.pop("params"), "head": {"kernel": head["weight"].T, "bias": head["bias"]}}
    return model, {"params": params, **{kind: {"encoder": tree} for kind, tree in variables.items()}}


def _byol(mapping: dict[str, np.ndarray], config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    for name in mapping:
        if not name.startswith(("backbone.", "momentum_backbone.", "predictor.")):
            raise InputError(f"{name!r} is not an array of BYOL. Pass the official state_dict of a wne + wint model.")
    for prefix in ("momentum_backbone.", "predictor."):
        if not arrays_below(mapping, prefix):
            raise InputError(f"The state has no arrays of {prefix.rstrip('.')}. Pass all of BYOL, or encoder arrays without `backbone.`.")
    online = _siamese_variables(mapping, "backbone.", "predictor.", config)
    target = _siamese_variables(mapping, "momentum_backbone.", None, config)
    dim, hidden = shape_of(mapping, "backbone.1.fc.3.weight")
    both = [arrays_below(mapping, prefix).get("0.multi_bias_encoder.scales") for prefix in ("backbone.", "momentum_backbone.")]
    if not np.array_equal(*both):
        raise InputError("The scales of the two networks differ, because they were trained. Convert one network, without its prefix.")
    model = SiameseNetwork(_encoder(arrays_below(mapping, "backbone."), config), hidden_dim=hidden, output_dim=dim)
    return model, {"online": online, "target": target}


def _siamese_variables(mapping: dict[str, np.ndarray], backbone: str, predictor: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
    arrays = arrays_below(mapping, backbone)
    encoder = _encoder_variables({name: array for name, array in arrays.items() if not name.startswith("1.fc.")}, config)
    params, statistics = {"encoder": encoder.pop("params")}, {}
    heads = {"projector": arrays_below(arrays, "1.fc.")}
    if predictor is not None:
        heads["predictor"] = arrays_below(mapping, predictor)
    for name, head in heads.items():
        params[name], statistics[name] = _split_batch_stats(_to_flat(head, _paths(_HEAD)))
    return {"params": params, "batch_stats": statistics, **{kind: {"encoder": tree} for kind, tree in encoder.items()}}


def _split_batch_stats(flat: dict[tuple[str, ...], np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters and the BatchNorm statistics of a head."""
    params = {path: array for path, array in flat.items() if path[-1] not in ("mean", "var")}
    statistics = {path: array for path, array in flat.items() if path[-1] in ("mean", "var")}
    return unflatten_dict(params), unflatten_dict(statistics)


def _encoder(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> NuTimeEncoder:
    statistics = "instance" if config["wne_use_instance_stats"] else "window"
    scales = mapping.get("0.multi_bias_encoder.scales", np.zeros(0))
    locations = mapping.get("0.multi_bias_encoder.locs", np.zeros(1))
    if "0.multi_bias_encoder.loc_emb" in mapping:
        if not config.get("loc_weighted_sum", True):
            raise InputError("loc_weighted_sum is false, but the state has vectors of locations. Only weighted locations can be converted.")
    elif locations.any() or len(locations) != 1:
        raise InputError(f"The locations {locations.tolist()} have no vectors. Only locations with vectors can be converted.")
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
        pos_embedding="learned" if _learned_positions(config) else "sinusoidal",
        **_masking(mapping, config),
    )
    return NuTimeEncoder(model)


def _learned_positions(config: Mapping[str, Any]) -> bool:
    return config.get("pe_mode") == "learnable"


def _masking(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of masked windows; officially masks hide blocks, or tokens at random are dropped."""
    kind = "learnable" if "1.mask_token" in mapping else config.get("transformer_mask_type", "none")
    if kind == "none":
        return {}
    strategy = {"learnable": {"mask_type": "block", "mask_strategy": "learned"}, "drop": {"mask_type": "random", "mask_strategy": "drop"}}
    return {"mask_ratio": config.get("transformer_mask_scale", OFFICIAL_MASK_RATIO), **strategy[kind]}


def _encoder_variables(mapping: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
    if "1.pos_embed" not in mapping:
        raise InputError("The state has no 1.pos_embed. Only encoders with fixed or learnable positions can be converted.")
    paths = _encoder_paths(config["transformer_depth"])
    unused = arrays_below(mapping, _FUSION) if config["use_channel_emb_sum"] else {}
    arrays = {name: array for name, array in mapping.items() if name not in BUFFERS and name.removeprefix(_FUSION) not in unused}
    variables = {"params": unflatten_dict(_to_flat(arrays, paths)), "constants": {}}
    variables["params" if _learned_positions(config) else "constants"]["positions"] = mapping["1.pos_embed"][0]
    if "mask_token" in variables["params"]:
        variables["params"]["mask_token"] = variables["params"]["mask_token"].reshape(-1)
    if unused:
        variables["unused"] = unflatten_dict(_to_flat({f"{_FUSION}{name}": array for name, array in unused.items()}, paths))
    return variables


def _to_flat(mapping: Mapping[str, np.ndarray], paths: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], np.ndarray]:
    flat = {}
    for name, array in mapping.items():
        if name == _COUNTER:
            continue
        if name not in paths:
            raise InputError(f"{name!r} is not an array of a NuTime network. Pass the official state_dict of a wne + wint model.")
        flat[paths[name]] = _to_kernel(array) if paths[name][-1] == "kernel" else array
    return flat


def _torch_backbone(encoder: NuTimeEncoder, variables: Mapping[str, Any], prefix: str, batches: int) -> dict[str, np.ndarray]:
    arrays = _torch_encoder(encoder, _of_encoder(variables)) | _torch_head(variables, "projector", "1.fc.", batches)
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _torch_head(variables: Mapping[str, Any], head: str, prefix: str, batches: int) -> dict[str, np.ndarray]:
    arrays = {**flatten_dict(variables["params"][head]), **flatten_dict(variables["batch_stats"][head])}
    state = {name: _from_flat(arrays[path], path) for name, path in _paths(_HEAD).items() if path in arrays}
    return {f"{prefix}{name}": array for name, array in {**state, _COUNTER: np.asarray(batches, np.int64)}.items()}


def _torch_encoder(encoder: NuTimeEncoder, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {**flatten_dict(variables["params"]), **flatten_dict(variables.get("unused", {}))}
    state = {name: _from_flat(arrays[path], path) for name, path in _encoder_paths(encoder.config.depth).items() if path in arrays}
    state["0.window_embedding.weight"] = state["0.window_embedding.weight"][:, None]  # officially a convolution with one input channel
    if encoder.config.window_stats != "none":
        scales, dtype = encoder.config.scales, state["0.multi_bias_encoder.ws"].dtype
        if encoder.config.learnable_scales:  # officially scales are buffers: learnt scales become fixed ones
            scales = rescaled_scales(jnp.asarray(scales, jnp.float32), jnp.asarray(arrays["embedding", "nme", "log_stretch"]))
        state["0.multi_bias_encoder.scales"] = np.asarray(scales, dtype)
        state["0.multi_bias_encoder.locs"] = (
            np.asarray(encoder.config.locations, dtype) if encoder.config.locations else np.zeros(1, np.int64)
        )
    if "1.mask_token" in state:
        state["1.mask_token"] = state["1.mask_token"].reshape(1, 1, -1)
    kind = "params" if encoder.config.pos_embedding == "learned" else "constants"
    return {**state, "1.pos_embed": np.asarray(variables[kind]["positions"])[None]}


def official_config(model: ModelConfig) -> dict[str, Any]:
    """Return the settings of an encoder that are not in the arrays of its PyTorch state."""
    masks = {"learned": "learnable", "drop": "drop"}
    return {
        "transformer_heads": model.num_heads,
        "transformer_head_dim": model.head_dim,
        "wne_use_in": model.normalisation == "instance",
        "wne_use_instance_stats": model.window_stats == "instance",
        "use_channel_emb_sum": model.channel_fusion == "sum",
        "scale_weighted_sum": model.scale_weighting,
        "dropout": model.dropout,
        "pe_mode": "learnable" if model.pos_embedding == "learned" else "fixed",
        "transformer_mask_type": masks[model.mask_strategy] if model.mask_ratio else "none",
        "transformer_mask_scale": model.mask_ratio,
    }


def _of_encoder(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: tree["encoder"] for kind, tree in variables.items() if "encoder" in tree}


def _encoder_paths(depth: int) -> dict[str, tuple[str, ...]]:
    """Return PyTorch name -> tree path, for all arrays of an encoder."""
    return _paths([*_EMBEDDING, *(module for block in range(depth) for module in _block_modules(block))])


def _block_modules(block: int) -> Iterator[tuple[str, tuple[str, ...], dict[str, str]]]:
    """Yield the modules of a block: of its six, the first is the attention, the fourth the MLP; the others have no weights."""
    attention, mlp = (f"1.transformer.layers.{6 * block + index}" for index in (0, 3))
    block_name = f"block_{block}"
    yield f"{attention}.norm", (block_name, "attention_norm"), _NORM
    yield f"{attention}.fn.to_qkv", (block_name, "attention", "qkv"), _LINEAR
    yield f"{attention}.fn.to_out.0", (block_name, "attention", "out"), _LINEAR
    yield f"{mlp}.norm", (block_name, "mlp_norm"), _NORM
    yield f"{mlp}.fn.layers.0", (block_name, "mlp", "in"), _LINEAR
    yield f"{mlp}.fn.layers.3", (block_name, "mlp", "out"), _LINEAR


def _paths(modules) -> dict[str, tuple[str, ...]]:
    return {f"{module}.{theirs}": (*path, ours) for module, path, leaves in modules for theirs, ours in leaves.items()}


def _to_kernel(weight: np.ndarray) -> np.ndarray:
    """Convert (out, in), or (out, 1, in) of a convolution with one input channel, to (in, out)."""
    return weight.reshape(len(weight), -1).T


def _from_flat(array: Any, path: tuple[str, ...]) -> np.ndarray:
    array = np.asarray(array)
    return array.T if path[-1] == "kernel" else array
