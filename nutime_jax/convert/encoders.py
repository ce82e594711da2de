"""Encoders from PyTorch states, with a report on the conversion, and PyTorch states of encoders and runs."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from nutime_jax.config import DataConfig, ModelConfig, PretrainConfig, from_dict
from nutime_jax.convert.arrays import BUFFERS, from_torch_state, official_config, to_torch_state
from nutime_jax.convert.settings import arrays_below
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.loading import find_bundle, load_encoder
from nutime_jax.models.heads import Classifier, SiameseNetwork
from nutime_jax.models.network import NuTimeEncoder, build_encoder
from nutime_jax.objectives import build_network
from nutime_jax.training.checkpoints import find_checkpoint, read_arrays, read_metadata

NETWORKS = ("online", "target")
OFFICIAL_DROPOUT, OFFICIAL_WINDOWS, MAX_LENGTH = 0.1, 32, 4096


class TargetDriftCheck(NamedTuple):
    """Evidence on whether a target network has followed its online network.

    The official implementation updates the moving average inside a forward pass. Under DataParallel that changes a replica and
    is lost. LayerNorm parameters show it: they start at exactly 1 and 0, and no trained one stays there.

    arrays, equal: number of trained arrays, and of those that are equal bit for bit in both networks.
    norms: number of LayerNorm arrays. untouched, online_untouched: number of those at their initial values in each network.
    """

    arrays: int
    equal: int
    norms: int
    untouched: int
    online_untouched: int

    @property
    def verdict(self) -> str:
        """Return the conclusion as a sentence."""
        if self.equal == self.arrays:
            return f"the target network is a copy of the online network: all {self.arrays} arrays are equal"
        counts = f"{self.equal} of {self.arrays} arrays equal those of the online network"
        if self.untouched == self.norms and self.online_untouched < self.norms:
            return (
                f"the target network never moved: its {self.norms} LayerNorm arrays have their initial values 1 and 0, "
                f"and {self.norms - self.online_untouched} of the online network do not; {counts}"
            )
        if self.untouched == self.norms:
            return f"neither network has trained LayerNorm arrays, so it is unknown whether the target network moved; {counts}"
        return f"the target network moved: {self.norms - self.untouched} of its {self.norms} LayerNorm arrays left 1 and 0; {counts}"


def check_target_moved(mapping: Mapping[str, np.ndarray]) -> TargetDriftCheck | None:
    """Check whether the target network of a BYOL state ever moved; None for other states."""
    online, target = (arrays_below(mapping, prefix) for prefix in ("backbone.", "momentum_backbone."))
    skipped = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name in target if name in online and name not in BUFFERS and not name.endswith(skipped)]
    if not names:
        return None
    # LayerNorm only: BatchNorm statistics of the projector move with every forward pass.
    starts = {name: 1 if name.endswith("weight") else 0 for name in names if "norm." in name or "embed_fc.1." in name}
    return TargetDriftCheck(
        arrays=len(names),
        equal=sum(np.array_equal(online[name], target[name]) for name in names),
        norms=len(starts),
        untouched=sum(bool(np.all(target[name] == start)) for name, start in starts.items()),
        online_untouched=sum(bool(np.all(online[name] == start)) for name, start in starts.items()),
    )


class ConversionResult(NamedTuple):
    """An encoder from a PyTorch state, and a report.

    kind: "BYOL", "classifier" or "encoder".
    parameters: number of parameters of the encoder.
    assumed: descriptions of settings that are neither in the arrays nor in the configuration.
    dropped: descriptions of groups of arrays that are not part of the encoder.
    target_drift: whether the target network moved; None if there is no target network.
    """

    encoder: Encoder
    kind: str
    parameters: int
    assumed: tuple[str, ...]
    dropped: tuple[str, ...]
    target_drift: TargetDriftCheck | None


def encoder_from_torch(
    mapping: Mapping[str, Any], config: Mapping[str, Any] | None = None, *, network: str = "online", length: int | None = None
) -> ConversionResult:
    """Return the encoder of a PyTorch state, in float32.

    The channel fusion of a multivariate state stays in the weights, so that `to_torch_state` can return it. Nothing else uses
    it: `Encoder.embed` encodes each channel separately, and fine-tuning initialises a new fusion.

    Args:
        mapping, config: as in `from_torch_state`; dropout (used in fine-tuning) has the official default if absent.
        network: network of a BYOL state, one of NETWORKS.
        length: time points to which series are resized; None is OFFICIAL_WINDOWS windows, or the number of positions if that
            is smaller.

    Raises:
        InputError: as `from_torch_state`; or the network or the length does not exist.
    """
    mapping = {name: np.asarray(array) for name, array in mapping.items()}
    given = {"dropout": OFFICIAL_DROPOUT, **(config or {})}
    module, variables = from_torch_state(mapping, given)
    if network not in NETWORKS:
        raise InputError(f"network {network!r} is unknown. Choose one of {', '.join(NETWORKS)}.")
    if network == "target" and not isinstance(module, SiameseNetwork):
        raise InputError("The state is not of BYOL and has no target network. Choose network=online.")
    encoder = module if isinstance(module, NuTimeEncoder) else module.encoder
    if isinstance(module, SiameseNetwork):
        variables = variables[network]
    weights = {kind: variables[kind] if module is encoder else variables[kind]["encoder"] for kind in ("params", "constants")}
    weights = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), weights)
    return ConversionResult(
        encoder=Encoder(_encoder_config(encoder.config, length), weights),
        kind={SiameseNetwork: "BYOL", Classifier: "classifier", NuTimeEncoder: "encoder"}[type(module)],
        parameters=sum(array.size for array in jax.tree.leaves(weights["params"])),
        assumed=_assumed(encoder.config, config or {}),
        dropped=tuple(_dropped(module, variables, network)),
        target_drift=check_target_moved(mapping),
    )


def torch_state_of(name_or_path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the PyTorch state of a pretrained or saved encoder, or of BYOL in a workdir or checkpoint, and its official settings.

    Raises:
        InputError: nothing is found there, or it is corrupt.
    """
    if find_bundle(name_or_path):
        encoder = load_encoder(name_or_path)
        return to_torch_state(encoder.network, encoder.variables), official_config(encoder.config.model)
    found = find_checkpoint(name_or_path)
    about = read_metadata(found)
    config = from_dict(PretrainConfig, about["config"])
    if config.objective.kind != "byol":
        raise InputError(
            f"{name_or_path} was trained by {config.objective.kind}, which the official implementation lacks. "
            "Convert its encoder only, saved by `Encoder.save`."
        )
    if config.objective.pooling != "cls":
        raise InputError(
            f"{name_or_path} has pooling {config.objective.pooling}; the official implementation has only cls. "
            "Convert its encoder only, saved by `Encoder.save`."
        )
    fields = read_arrays(found, ("params", "variables", "target_params", "target_variables"))
    online = {"params": fields["params"], **fields["variables"]}
    target = {"params": fields["target_params"], **fields["target_variables"]}
    # BatchNorm processes the two views of a step one after the other.
    network = build_network(build_encoder(config.model), config.objective)
    state = to_torch_state(network, {"online": online, "target": target}, batches=2 * about["step"])
    return state, official_config(config.model)


def _encoder_config(model: ModelConfig, length: int | None) -> PretrainConfig:
    windows = min(OFFICIAL_WINDOWS, model.max_tokens - 1)
    length = windows * model.window_size if length is None else length
    if length < 1 or length % model.window_size or length // model.window_size >= model.max_tokens:
        most = (model.max_tokens - 1) * model.window_size
        raise InputError(f"length {length} does not suit the encoder. Choose a multiple of {model.window_size}, at most {most}.")
    data = DataConfig(max_length=MAX_LENGTH)
    return PretrainConfig(name="converted", seed=0, length=length, matmul_precision="highest", model=model, data=data)


def _assumed(model: ModelConfig, config: Mapping[str, Any]) -> tuple[str, ...]:
    defaults = {
        ("transformer_heads", "transformer_head_dim"): f"heads of width {model.head_dim}",
        ("wne_use_in",): "windows normalised separately",
        ("wne_use_instance_stats",): "mean and std of each window",
        ("scale_weighted_sum",): "weighted scales",
        ("use_channel_emb_sum",): "channels fused by a linear layer",
        ("dropout",): f"dropout {model.dropout:g}",
    }
    if model.locations:
        defaults["loc_weighted_sum",] = "locations weighted by distance"
    return tuple(description for names, description in defaults.items() if not any(name in config for name in names))


def _dropped(module: nn.Module, variables: Mapping[str, Any], network: str) -> Iterator[str]:
    if isinstance(module, SiameseNetwork):
        yield "projector and predictor" if network == "online" else "projector"
        yield f"the {next(other for other in NETWORKS if other != network)} network"
    elif isinstance(module, Classifier):
        yield f"the head of {module.classes} classes"
    if "unused" in variables:
        yield "a channel fusion that is never used"
