"""Encoders out of PyTorch states, with what was found there, and the states of what this library wrote."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from nutime_jax.bundle import is_bundle
from nutime_jax.config import DataConfig, ModelConfig, PretrainConfig, from_dict
from nutime_jax.convert.arrays import BUFFERS, from_torch_state, to_torch_state
from nutime_jax.convert.states import arrays_below
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.loading import list_pretrained, load_encoder
from nutime_jax.models.heads import Classifier, SiameseNetwork
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.training.checkpoints import find_checkpoint, read_about, read_arrays
from nutime_jax.training.state import build_network

NETWORKS = ("online", "target")
RELEASED_DROPOUT, RELEASED_WINDOWS, MAX_LENGTH = 0.1, 32, 4096


class Twin(NamedTuple):
    """What tells whether a target network has followed its online network.

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
            return f"the target network is a copy of the online network: all {self.arrays} arrays are equal"
        counts = f"{self.equal} of {self.arrays} arrays equal the online ones"
        if self.untouched == self.norms and self.online_untouched < self.norms:
            return (
                f"the target network never moved: its {self.norms} layer-norm arrays are exactly 1 and 0, as they started, "
                f"and {self.norms - self.online_untouched} of the online ones are not; {counts}"
            )
        if self.untouched == self.norms:
            return f"neither network has trained layer norms: nothing tells whether the target network moved; {counts}"
        return f"the target network moved: {self.norms - self.untouched} of its {self.norms} layer-norm arrays left 1 and 0; {counts}"


def compare_twin(mapping: Mapping[str, np.ndarray]) -> Twin | None:
    """Whether the target network of a BYOL state ever moved; None where there is none."""
    online, target = (arrays_below(mapping, prefix) for prefix in ("backbone.", "momentum_backbone."))
    skipped = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name in target if name in online and name not in BUFFERS and not name.endswith(skipped)]
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
    twin: whether the target network moved; None where there is none.
    """

    encoder: Encoder
    kind: str
    parameters: int
    assumed: tuple[str, ...]
    left_out: tuple[str, ...]
    twin: Twin | None


def encoder_from_torch(
    mapping: Mapping[str, Any], config: Mapping[str, Any] | None = None, *, network: str = "online", length: int | None = None
) -> Converted:
    """The encoder of a PyTorch state, ready to embed and to be saved; float32.

    The channel fusion of a multivariate state is kept in the weights, so that it comes back by `to_torch_state`; nothing
    else uses it: `Encoder.embed` encodes every channel alone, and fine-tuning draws a fusion of its own.

    Args:
        mapping, config: as in `from_torch_state`; dropout is as released when absent (fine-tuning uses it).
        network: network of a BYOL state, one of NETWORKS.
        length: points that every series is resized to; None is RELEASED_WINDOWS windows, or as many as there are
            positions for.

    Raises:
        InputError: as `from_torch_state`; or there is no such network or no such length.
    """
    mapping = {name: np.asarray(array) for name, array in mapping.items()}
    given = {"dropout": RELEASED_DROPOUT, **(config or {})}
    module, variables = from_torch_state(mapping, given)
    if network not in NETWORKS:
        raise InputError(f"network {network!r} is unknown; choose one of {', '.join(NETWORKS)}")
    if network == "target" and not isinstance(module, SiameseNetwork):
        raise InputError("the state has no target network, it is not BYOL's; take the online network, which is the only one")
    encoder = module if isinstance(module, NuTimeEncoder) else module.encoder
    if isinstance(module, SiameseNetwork):
        variables = variables[network]
    kept = {kind: variables[kind] if module is encoder else variables[kind]["encoder"] for kind in ("params", "constants")}
    kept = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), kept)
    return Converted(
        encoder=Encoder(_encoder_config(encoder.config, length), kept),
        kind={SiameseNetwork: "BYOL", Classifier: "classifier", NuTimeEncoder: "encoder"}[type(module)],
        parameters=sum(array.size for array in jax.tree.leaves(kept["params"])),
        assumed=_assumed(encoder.config, config or {}),
        left_out=tuple(_left_out(module, variables, network)),
        twin=compare_twin(mapping),
    )


def torch_state_of(name_or_path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The PyTorch state of what this library wrote: an encoder's, of a shipped one or a folder of `Encoder.save`; BYOL's, of a
    workdir or a checkpoint.

    Raises:
        InputError: there is nothing of the kind, or it is damaged.
    """
    if is_bundle(name_or_path) or os.fspath(name_or_path) in list_pretrained():
        encoder = load_encoder(name_or_path)
        return to_torch_state(encoder.network, encoder.variables)
    found = find_checkpoint(name_or_path)
    about = read_about(found)
    config = from_dict(PretrainConfig, about["config"])
    if config.objective.kind != "byol":
        raise InputError(
            f"{name_or_path} was trained by {config.objective.kind}, which the official code has not; "
            "save its encoder alone, by `Encoder.save`"
        )
    if config.objective.pooling != "cls":
        raise InputError(
            f"{name_or_path} projects {config.objective.pooling}, where the official code has cls alone; "
            "save its encoder alone, by `Encoder.save`"
        )
    fields = read_arrays(found, ("params", "variables", "target_params", "target_variables"))
    online = {"params": fields["params"], **fields["variables"]}
    target = {"params": fields["target_params"], **fields["target_variables"]}
    # BatchNorm sees the two views of a step one after the other.
    return to_torch_state(build_network(config), {"online": online, "target": target}, batches=2 * about["step"])


def _encoder_config(model: ModelConfig, length: int | None) -> PretrainConfig:
    windows = min(RELEASED_WINDOWS, model.max_tokens - 1)
    length = windows * model.window_size if length is None else length
    if length < 1 or length % model.window_size or length // model.window_size >= model.max_tokens:
        most = (model.max_tokens - 1) * model.window_size
        raise InputError(f"length {length} does not suit the encoder; choose a multiple of {model.window_size}, at most {most}")
    data = DataConfig(max_length=MAX_LENGTH)
    return PretrainConfig(name="converted", seed=0, length=length, matmul_precision="highest", model=model, data=data)


def _assumed(model: ModelConfig, config: Mapping[str, Any]) -> tuple[str, ...]:
    open_ones = {
        ("transformer_heads", "transformer_head_dim"): f"heads {model.head_dim} wide",
        ("wne_use_in",): "windows normalised one by one",
        ("wne_use_instance_stats",): "mean and std of each window",
        ("scale_weighted_sum",): "weighted scales",
        ("use_channel_emb_sum",): "channels fused by a linear layer",
        ("dropout",): f"dropout {model.dropout:g}",
    }
    if model.locations:
        open_ones["loc_weighted_sum",] = "locations weighed by distance"
    return tuple(words for names, words in open_ones.items() if not any(name in config for name in names))


def _left_out(module: nn.Module, variables: Mapping[str, Any], network: str) -> Iterator[str]:
    if isinstance(module, SiameseNetwork):
        yield "projector and predictor" if network == "online" else "projector"
        yield f"the {next(one for one in NETWORKS if one != network)} network"
    elif isinstance(module, Classifier):
        yield f"the head of {module.classes} classes"
    if "unused" in variables:
        yield "a channel fusion that is never used"
