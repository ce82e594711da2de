"""Sources of encoders: pretrained ones by name, bundles and checkpoints by path, untrained baselines by configuration."""

import difflib
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from nutime_jax.bundle import CONFIG, is_bundle, load_bundle
from nutime_jax.config import PretrainConfig, from_dict
from nutime_jax.distributed.backend import arrays_of_32_bits, use_backend
from nutime_jax.encoder import KIND, SCHEMA, Encoder
from nutime_jax.errors import InputError
from nutime_jax.hub import download, is_hub
from nutime_jax.models.heads import SiameseNetwork, encoder_part
from nutime_jax.models.network import build_encoder, check_num_window_offsets
from nutime_jax.models.scalar_encoders import UnknownScalarEncoderError

WEIGHTS = Path(__file__).parent / "weights"
"""Directory of the pretrained encoders, one bundle per name."""


def list_pretrained() -> list[str]:
    """Return the names of the pretrained encoders in the package."""
    return sorted(path.name for path in WEIGHTS.glob("*") if is_bundle(path))


def find_bundle(name_or_path: str | os.PathLike) -> Path | None:
    """Return the folder of a pretrained name, of an address of the hub, or of a saved encoder; None for anything else.

    Raises:
        InputError: the hub cannot be read.
    """
    name = os.fspath(name_or_path)
    if is_hub(name):
        return download(name)
    path = WEIGHTS / name if name in list_pretrained() else Path(name)
    return path if is_bundle(path) else None


@arrays_of_32_bits()
def load_encoder(name_or_path: str | os.PathLike, *, setting: str | None = None) -> Encoder:
    """Load an encoder.

    Args:
        name_or_path: name of a pretrained encoder (a directory of that name is "./name"), a bundle that `Encoder.save`
            wrote, a workdir of `nutime pretrain` (its newest intact checkpoint; WORKDIR/best is the best by
            `run.best_metric`), or a checkpoint. Workdirs and checkpoints may be in a bucket, gs://…. A repository of the
            Hugging Face Hub is hf://USER/NAME, or hf://USER/NAME@REVISION (extra "hub").
        setting: named setting of the encoder, "fast" or "accurate", see `Encoder.with_setting`; None is its default.

    Returns:
        The frozen encoder.

    Raises:
        InputError: no encoder is found, it is corrupt, or it does not have the setting.
    """
    encoder = _load_encoder(name_or_path)
    return encoder if setting is None else encoder.with_setting(setting)


def _load_encoder(name_or_path: str | os.PathLike) -> Encoder:
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise InputError(f"the encoder is {name_or_path!r}; pass a name or a path")
    name, path = os.fspath(name_or_path), Path(name_or_path).expanduser()
    try:
        if bundle := find_bundle(name):
            return _load_encoder_bundle(bundle)
        remote = path.parts[:1] == ("gs:",)
        if not (path.exists() or remote or (path.name == "best" and path.parent.exists())):
            raise InputError(_not_found(name, list_pretrained()))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name!r} is not a valid path ({error}); pass the name or the directory of an encoder") from error
    return _load_checkpoint(path)


def _not_found(name: str, pretrained: list[str]) -> str:
    similar = difflib.get_close_matches(name, pretrained, n=1)
    guess = f" (did you mean {similar[0]!r}?)" if similar else ""
    names = f"a pretrained name ({', '.join(pretrained)}), " if pretrained else ""
    return f"encoder {name!r} not found{guess}; pass {names}a saved encoder directory, or a `nutime pretrain` workdir"


def _load_checkpoint(path: Path) -> Encoder:
    from nutime_jax.training.checkpoints import find_checkpoint, read_arrays, read_metadata
    from nutime_jax.training.state import encoder_variables

    checkpoint = find_checkpoint(path)
    variables = encoder_variables(read_arrays(checkpoint, ("params", "variables")))
    return Encoder(from_dict(PretrainConfig, read_metadata(checkpoint)["config"]), variables)


@use_backend()
def untrained_encoder(config: PretrainConfig, *, trained: Encoder | None = None) -> Encoder:
    """Return the untrained baseline: the encoder at the start of a run, initialised from its seed.

    Args:
        config: configuration of the run.
        trained: trained encoder whose data-fitted constants (`training.state.init_from_data`) are copied. None keeps the
            initial constants.
    """
    # Flax derives initial weights from their names, so the size of the heads does not matter.
    network = SiameseNetwork(build_encoder(config.model), hidden_dim=1, output_dim=1)
    init = jax.jit(network.init, static_argnames="train")
    variables = init(jax.random.key(config.seed), jnp.zeros((2, 2, 1, config.length)), train=False)
    variables = jax.tree.map(np.asarray, encoder_part(variables))
    if trained is not None and "embedding" in trained.variables.get("constants", {}):
        variables["constants"] = {**variables["constants"], "embedding": trained.variables["constants"]["embedding"]}
    return Encoder(config, variables)


def _load_encoder_bundle(folder: str | os.PathLike) -> Encoder:
    about, arrays, _ = load_bundle(folder, kind=KIND, schema=SCHEMA, writer="`Encoder.save`")
    arrays = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()}
    try:
        encoder = Encoder(from_dict(PretrainConfig, about["encoder"]), unflatten_dict(arrays, sep="/"))
        # A name that is a prefix of another would hide it.
        clash = flatten_dict(encoder.variables, sep="/").keys() != arrays.keys()
        problem = "two array names clash" if clash else _mismatch(encoder)
    except UnknownScalarEncoderError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # the bundle was written by other code
        problem = str(error)
    if problem:
        raise InputError(f"{folder} is corrupt: the weights do not match {CONFIG} ({problem}); use another copy")
    return encoder


def _mismatch(encoder: Encoder) -> str | None:
    """Return the difference between the weights and those that the configuration describes; None if there is none."""
    actual, network, model = flatten_dict(encoder.variables, sep="/"), encoder.network, encoder.config.model
    encoder.with_options(input_lengths=encoder.input_lengths)
    check_num_window_offsets(encoder.num_window_offsets, network)
    blocks = {name.split("/")[1] for name in actual if name.startswith("params/block_")}
    # Checked before the network is traced: a corrupt configuration may need more memory than there is.
    table = {"sinusoidal": "constants/positions", "learned": "params/positions"}.get(model.pos_embedding)
    if (table and actual[table].shape != (model.max_tokens, model.width)) or len(blocks) != model.depth:
        return "they have another size"
    for size in model.extra_window_sizes:
        if actual[f"params/embedding/shape_{size}/kernel"].shape[0] != size:
            return f"they have other windows than {size} time points"
    fusion = actual.get("params/embedding/fusion/kernel")
    channels = 1 if fusion is None else fusion.shape[0] // model.width
    # For a platform by name: JAX would start its own, and a fork could not compute any more.
    named = build_encoder(model, platform="cpu")
    expected = jax.eval_shape(lambda: named.init(jax.random.key(0), jnp.zeros((1, channels, model.min_length))))
    expected = flatten_dict(expected, sep="/")
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is unexpected"
        if (actual[name].shape, actual[name].dtype) != (expected[name].shape, expected[name].dtype):
            return f"{name} is {actual[name].dtype}{list(actual[name].shape)}"
    return None
