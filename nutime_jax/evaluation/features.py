"""Frozen features of a labelled set, and the raw series as features, for comparison."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from nutime_jax.data.datasets import Cases, DatasetFiles
from nutime_jax.encoder import Encoder, resize_series
from nutime_jax.errors import InputError
from nutime_jax.models.pooling import check_pooling
from nutime_jax.storage import open_atomically


@dataclass(frozen=True)
class FeatureSet:
    """Features (cases, features) and labels (cases,) of one split of a set."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Task:
    """A set to classify: its name, its cases for training, and those for testing."""

    name: str
    train: Cases
    test: Cases


@dataclass(frozen=True)
class FeatureSpec:
    """How a case's tokens become one vector.

    layer: 0 (before the first block) to depth; None is the last, normalised.
    pooling: "cls", "mean", "cls+mean", or "all_layers" (of every layer; `layer` is None).
    channels: "mean" over the channels of a case, or "concat".
    input_lengths, num_window_offsets, diff_orders: see `Encoder.with_options`; empty and 0 for the encoder's own.
    """

    layer: int | None = None
    pooling: str = "cls+mean"
    channels: str = "concat"
    input_lengths: tuple[int, ...] = ()
    num_window_offsets: int = 0
    diff_orders: tuple[int, ...] = ()

    def __str__(self) -> str:
        layer = "all" if self.pooling == "all_layers" else "last" if self.layer is None else self.layer
        lengths = f" input_lengths={'+'.join(map(str, self.input_lengths))}" if self.input_lengths else ""
        offsets = f" num_window_offsets={self.num_window_offsets}" if self.num_window_offsets else ""
        orders = f" diff_orders={'+'.join(map(str, self.diff_orders))}" if self.diff_orders else ""
        return f"layer={layer} pooling={self.pooling} channels={self.channels}{lengths}{offsets}{orders}"


def read_task(files: DatasetFiles) -> Task:
    """Reads both default splits of a set.

    Raises:
        InputError: a split is absent or cannot be read, or its cases have no classes.
    """
    return Task(files.name, test=files.read_labelled("test"), train=files.read_labelled("train"))


def layer_features(encoder: Encoder, cases: Cases, *, cache: Path | None = None, batch_size: int = 256) -> np.ndarray:
    """Features of every layer at once, (cases, channels, layers, 2, features); see `Encoder.embed_layers`.

    Args:
        encoder: one that reads series at a single length and order, so that these can be chosen later.
        cache: folder where they are kept, named after the contents of encoder and cases; None keeps nothing.
    """
    path = None if cache is None else cache / f"{encoder_digest(encoder)[:24]}-{cases_digest(cases)[:24]}.npy"
    if path is not None and path.exists():
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError):
            path.unlink()  # of a disk that was full; it is computed anew
    flat = encoder.embed_layers([channel for case in cases.series for channel in case], batch_size=batch_size)
    features = flat.reshape(len(cases.series), -1, *flat.shape[1:])
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path) as file:
            np.save(file, features)
    return features


def read_features(layers: Sequence[np.ndarray], spec: FeatureSpec) -> np.ndarray:
    """One vector a case, (cases, features), out of `layer_features` at each order and length.

    Raises:
        InputError: no such layer, pooling or combination of channels.
    """
    if spec.channels not in ("mean", "concat"):
        raise InputError(f"channels {spec.channels!r} gives no single vector a case; choose mean or concat")
    vectors = np.concatenate([_read_tokens(one, spec) for one in layers], axis=-1)
    return vectors.mean(1) if spec.channels == "mean" else vectors.reshape(len(vectors), -1)


def _read_tokens(layers: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """(cases, channels, layers, 2, width) -> (cases, channels, features)."""
    depth = layers.shape[2] - 2
    check_pooling(depth, layer=spec.layer, pooling=spec.pooling)
    tokens = layers[:, :, depth + 1 if spec.layer is None else spec.layer]
    kept = {"cls": tokens[:, :, :1], "mean": tokens[:, :, 1:], "cls+mean": tokens, "all_layers": layers[:, :, :-1]}[spec.pooling]
    return kept.reshape(*kept.shape[:2], -1)


def encoder_digest(encoder: Encoder) -> str:
    """SHA-256 of the weights and of what in the configuration decides features."""
    config = encoder.config
    about = [
        dataclasses.asdict(config.model),
        encoder.input_lengths,
        encoder.num_window_offsets,
        encoder.diff_orders,
        config.data.max_length,
    ]
    parts = [json.dumps(about, sort_keys=True, default=list).encode()]
    leaves = jax.tree_util.tree_leaves_with_path(encoder.variables)
    parts += [part for path, leaf in leaves for part in (jax.tree_util.keystr(path).encode(), np.asarray(leaf).tobytes())]
    return digest(parts)


def cases_digest(cases: Cases) -> str:
    """SHA-256 of series and labels."""
    labels = [] if cases.labels is None else [str(label).encode() for label in cases.labels]
    return digest([part for one in cases.series for part in (str((one.shape, one.dtype)).encode(), one.tobytes())] + labels)


def digest(parts: list[bytes]) -> str:
    """SHA-256 of parts, one after the other; where one ends counts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()


def encode_cases(encoder: Encoder, cases: Cases, **options) -> FeatureSet:
    """Features of cases; `options` are those of `Encoder.embed`.

    Raises:
        InputError: the options do not give one vector a case.
    """
    features = encoder.embed(cases.series, **options)
    if features.ndim != 2:
        raise InputError(f"channels {options['channels']!r} gives no single vector a case; choose mean or concat")
    return FeatureSet(features, cases.labels)


def raw_cases(cases: Cases, *, length: int) -> FeatureSet:
    """The series themselves, resized to one length, channels side by side."""
    channels = resize_series([channel for case in cases.series for channel in case], length)
    return FeatureSet(channels.reshape(len(cases.series), -1), cases.labels)
