"""Where encoders come from: shipped ones by name, folders and checkpoints by path, and untrained twins by configuration."""

import difflib
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from nutime_jax.bundle import CONFIG, is_bundle, load_bundle
from nutime_jax.compilation_cache import enable_compilation_cache
from nutime_jax.config import PretrainConfig, from_dict
from nutime_jax.encoder import KIND, SCHEMA, Encoder
from nutime_jax.errors import InputError
from nutime_jax.models.configuration import build_encoder, check_input_lengths, check_num_window_offsets
from nutime_jax.models.heads import SiameseNetwork, encoder_part
from nutime_jax.models.scalar_encoders import UnknownScalarEncoderError

WEIGHTS = Path(__file__).parent / "weights"
"""A folder a shipped encoder, by name."""


def list_pretrained() -> list[str]:
    """Names of the encoders that come with the package."""
    return sorted(path.name for path in WEIGHTS.glob("*") if is_bundle(path))


def load_encoder(name_or_path: str | os.PathLike) -> Encoder:
    """Loads an encoder.

    Args:
        name_or_path: the name of a shipped encoder (a folder of that name is "./name"), a folder that `Encoder.save`
            wrote, a workdir of `nutime pretrain` (its newest intact checkpoint; WORKDIR/best is the best by `run.best_metric`),
            one checkpoint, or either in a bucket, gs://….

    Raises:
        InputError: there is no encoder, or it is damaged.
    """
    enable_compilation_cache()
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise InputError(f"an encoder is loaded by a name or a path, not by {name_or_path!r}; give one of them")
    name, shipped = os.fspath(name_or_path), list_pretrained()
    path = WEIGHTS / name if name in shipped else Path(name).expanduser()
    try:
        if is_bundle(path):
            return _load_bundle(path)
        if not (path.exists() or path.parts[:1] == ("gs:",) or (path.name == "best" and path.parent.exists())):
            near = difflib.get_close_matches(name, shipped, n=1)
            guess = f", did you mean {near[0]!r}?" if near else ""
            known = f"shipped: {', '.join(shipped)}" if shipped else "none is shipped"
            raise InputError(f"there is no encoder {name!r}{guess}; {known}, or give a folder of one, or a workdir of `nutime pretrain`")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name!r} cannot be a path ({error}); give the name or the folder of an encoder") from error
    from nutime_jax.training.checkpoints import find_checkpoint, read_about, read_arrays
    from nutime_jax.training.state import encoder_variables

    found = find_checkpoint(path)
    return Encoder(from_dict(PretrainConfig, read_about(found)["config"]), encoder_variables(read_arrays(found, ("params", "variables"))))


def untrained_encoder(config: PretrainConfig, *, trained: Encoder | None = None) -> Encoder:
    """The untrained twin: the encoder of a configuration as its run starts, drawn from its seed.

    Args:
        trained: the encoder whose twin it is; what was fitted to its data before the first step (`train.fitting`) is taken
            over. None leaves such constants as they are without data.
    """
    enable_compilation_cache()
    # A weight is drawn by its name: the heads have no part in it, and may be as small as they like.
    network = SiameseNetwork(build_encoder(config.model), hidden_dim=1, output_dim=1)
    variables = jax.jit(network.init, static_argnames="train")(
        jax.random.key(config.seed), jnp.zeros((2, 2, 1, config.length)), train=False
    )
    found = jax.tree.map(np.asarray, encoder_part(variables))
    if trained is not None and "embedding" in trained.variables.get("constants", {}):
        found["constants"] = {**found["constants"], "embedding": trained.variables["constants"]["embedding"]}
    return Encoder(config, found)


def _load_bundle(folder: str | os.PathLike) -> Encoder:
    about, arrays, _ = load_bundle(folder, kind=KIND, schema=SCHEMA, writer="`Encoder.save`")
    arrays = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()}
    try:
        encoder = Encoder(from_dict(PretrainConfig, about["encoder"]), unflatten_dict(arrays, sep="/"))
        # A name that goes on where another ends would hide it.
        clash = flatten_dict(encoder.variables, sep="/").keys() != arrays.keys()
        problem = "two names clash" if clash else _misfit(encoder)
    except UnknownScalarEncoderError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # a bundle of something else
        problem = str(error)
    if problem:
        raise InputError(f"{folder} is damaged: its weights are no encoder's of its {CONFIG} ({problem}); use another copy")
    return encoder


def _misfit(encoder: Encoder) -> str | None:
    """How the weights differ from those that the configuration describes, in words; None where they do not."""
    given, network, model = flatten_dict(encoder.variables, sep="/"), encoder.network, encoder.config.model
    check_input_lengths(encoder.input_lengths, network)
    check_num_window_offsets(encoder.num_window_offsets, network)
    blocks = {name.split("/")[1] for name in given if name.startswith("params/block_")}
    # Looked at before anything is made of them: a description may ask for more than there is memory.
    table = {"sinusoidal": "constants/positions", "learned": "params/positions"}.get(model.pos_embedding)
    if (table and given[table].shape != (model.max_tokens, model.width)) or len(blocks) != model.depth:
        return "they are of another size"
    for size in model.extra_window_sizes:
        if given[f"params/embedding/shape_{size}/kernel"].shape[0] != size:
            return f"they are of other windows than {size} points"
    channels = given["params/embedding/fusion/kernel"].shape[0] // model.width if "params/embedding/fusion/kernel" in given else 1
    asked = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, channels, model.min_length))))
    asked = flatten_dict(asked, sep="/")
    for name in sorted(asked.keys() | given.keys()):
        if name not in given or name not in asked:
            return f"{name} is {'missing' if name not in given else 'foreign'}"
        if (given[name].shape, given[name].dtype) != (asked[name].shape, asked[name].dtype):
            return f"{name} is {given[name].dtype}{list(given[name].shape)}"
    return None
