"""Encoders of an evaluation, by name: pretrained encoders, folders, workdirs, and untrained baselines."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from nutime_jax.encoder import Encoder
from nutime_jax.loading import find_bundle, load_encoder, untrained_encoder

UNTRAINED = "untrained:"
"""Prefix of the path of an encoder: use its untrained baseline, initialised from the seed of its run."""


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder in an evaluation. Encoders of the same name are repetitions, distinguished by their number.

    source: text of `Result.encoder`.
    """

    name: str
    number: int
    encoder: Encoder
    source: str


def find_encoders(
    entries: Sequence[str], *, setting: str = "", normalise: str = "", load: Callable[[str], Encoder] = load_encoder
) -> list[NamedEncoder]:
    """Load encoders from entries [NAME=]PATH or [NAME=]untrained:PATH. Names may repeat.

    Args:
        entries: without a name, the last part of the path is the name.
        setting: named setting of every encoder; empty is its default.
        normalise: see `Encoder.with_options`; empty is that of the encoder.
        load: path -> encoder.

    Raises:
        InputError: a path has no encoder, or an encoder does not have the setting.
    """
    encoders: list[NamedEncoder] = []
    for entry in entries:
        name, path = split_name(entry)
        where = path.removeprefix(UNTRAINED)
        encoder = load(where).with_setting(setting) if setting else load(where)
        encoder = encoder.with_options(normalise=normalise) if normalise else encoder
        if path.startswith(UNTRAINED):
            encoder = untrained_encoder(encoder.config, trained=encoder)
        number = sum(other.name == name for other in encoders)
        encoders.append(NamedEncoder(name, number, encoder, describe_encoder(path, encoder)))
    return encoders


def split_name(entry: str) -> tuple[str, str]:
    """Return name and path of an entry of `find_encoders`."""
    name, equals, path = entry.partition("=")
    if equals and name and path and not Path(entry).exists():
        return name, path
    where = Path(entry.removeprefix(UNTRAINED))
    return f"untrained {where.name}" if entry.startswith(UNTRAINED) else where.name, entry


def describe_encoder(path: str, encoder: Encoder) -> str:
    """Return the origin of an encoder: path, step and commit of a run, precision, normalisation, start of the digest of its weights."""
    parts, where = [path], path.removeprefix(UNTRAINED)
    if Path(where).expanduser().is_dir() and not find_bundle(where):
        from nutime_jax.training.checkpoints import find_checkpoint, read_metadata

        metadata = read_metadata(find_checkpoint(where))
        parts += [f"{name}={metadata[name]}" for name in ("step", "commit") if metadata.get(name)]
    if (precision := encoder.config.evaluation.precision) != "highest":
        parts.append(f"precision={precision}")
    if (normalise := encoder.config.evaluation.normalise) != "none":
        parts.append(f"normalise={normalise}")
    return " ".join([*parts, f"weights={weights_digest(encoder)[:12]}"])


def weights_digest(encoder: Encoder) -> str:
    """Return the SHA-256 of names and values of the weights."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(encoder.variables):
        total.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return total.hexdigest()
