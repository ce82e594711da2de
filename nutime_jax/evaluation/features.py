"""Frozen features of labelled datasets, and raw series as features for comparison."""

import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nutime_jax.data.datasets import Cases, DatasetFiles
from nutime_jax.embedding import resize_series
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.models.pooling import ALL_LAYERS, check_pooling, split_layers
from nutime_jax.storage import error_summary, read_checked, write_checked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureSet:
    """Features (cases, features) and labels (cases,) of one split of a dataset."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Task:
    """A labelled dataset: name, training cases and test cases, if any."""

    name: str
    train: Cases
    test: Cases | None


@dataclass(frozen=True)
class FeatureSpec:
    """Settings by which the tokens of a case become one vector.

    layer: 0 (before the first block) to depth; None is the last layer, normalised.
    pooling: see `models.pooling.pool_tokens`; None for that of the encoder.
    channels: "mean" over the channels of a case, or "concat".
    input_lengths, num_window_offsets, diff_orders: see `Encoder.with_options`; empty or 0 for those of the encoder.
    setting: named setting that the encoder was loaded with; empty for its default.
    """

    layer: int | None = None
    pooling: str | None = None
    channels: str = "concat"
    input_lengths: tuple[int, ...] = ()
    num_window_offsets: int = 0
    diff_orders: tuple[int, ...] = ()
    setting: str = ""

    def of(self, encoder: Encoder) -> "FeatureSpec":
        """Return the spec with the pooling of an encoder, if it has none."""
        return dataclasses.replace(self, pooling=encoder.choose_pooling(layer=self.layer, pooling=self.pooling))

    @property
    def options(self) -> dict[str, Any]:
        """Layer, pooling and channels, as arguments of `Encoder.embed`."""
        return {"layer": self.layer, "pooling": self.pooling, "channels": self.channels}

    def __str__(self) -> str:
        layer = "all" if self.pooling in ALL_LAYERS else "last" if self.layer is None else self.layer
        lengths = f" input_lengths={'+'.join(map(str, self.input_lengths))}" if self.input_lengths else ""
        offsets = f" num_window_offsets={self.num_window_offsets}" if self.num_window_offsets else ""
        orders = f" diff_orders={'+'.join(map(str, self.diff_orders))}" if self.diff_orders else ""
        setting = f" setting={self.setting}" if self.setting else ""
        return f"layer={layer} pooling={self.pooling} channels={self.channels}{lengths}{offsets}{orders}{setting}"


def read_task(files: DatasetFiles) -> Task:
    """Read both default splits of a dataset.

    Raises:
        InputError: a split is absent or cannot be read, or its cases have no classes.
    """
    return Task(files.name, test=files.read_labelled("test"), train=files.read_labelled("train"))


class LayerFeatures(NamedTuple):
    """Features of every layer of channels, and of their differences (`Encoder.prepare_case`).

    tokens: (cases, channels, layers, 2, width), see `split_layers`.
    stem: pooled stem features, (cases, channels, features).
    channels: number of channels without differences.
    """

    tokens: np.ndarray
    stem: np.ndarray
    channels: int


def layer_features(encoder: Encoder, cases: Cases, *, cache: Path | None = None, batch_size: int = 256) -> LayerFeatures:
    """Return features of every layer; see `Encoder.embed_layers`.

    Args:
        encoder: an encoder with a single input length and difference order.
        cache: folder of cached features, named by digests of encoder and cases; None: no cache.
    """
    features = _cached_features(encoder, cases, cache=cache, batch_size=batch_size)
    model = encoder.config.model
    return LayerFeatures(*split_layers(features, depth=model.depth, width=model.width), channels=len(cases.series[0]))


def _cached_features(encoder: Encoder, cases: Cases, *, cache: Path | None, batch_size: int) -> np.ndarray:
    path = None if cache is None else cache / f"{encoder_digest(encoder)[:24]}-{cases_digest(cases)[:24]}.features"
    if path is not None and (stored := read_checked(path)) is not None:
        return np.load(io.BytesIO(stored), allow_pickle=False)
    channels = [channel for case in cases.series for channel in encoder.prepare_case(case)]
    flat = encoder.embed_layers(channels, batch_size=batch_size)
    features = flat.reshape(len(cases.series), -1, *flat.shape[1:])
    if path is not None:
        _store(features, path)
    return features


def _store(features: np.ndarray, path: Path) -> None:
    """Write a cache; one that cannot be written costs time, not results."""
    content = io.BytesIO()
    np.save(content, features)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checked(path, content.getvalue())
    except OSError as error:
        log.warning("features are not kept: %s cannot be written (%s)", path.parent, error_summary(error))


def read_features(layers: Sequence[LayerFeatures], spec: FeatureSpec) -> np.ndarray:
    """Return one vector per case, (cases, features), from the `layer_features` of each order and length.

    Raises:
        InputError: no such layer, pooling or combination of channels.
    """
    if spec.channels not in ("mean", "concat"):
        raise InputError(f"channels {spec.channels!r} does not give one vector per case; choose mean or concat")
    vectors = np.concatenate([_pool(part, spec, stem=part is layers[0]) for part in layers], axis=-1)
    return vectors[:, : layers[0].channels].mean(1) if spec.channels == "mean" else vectors.reshape(len(vectors), -1)


def _pool(layers: LayerFeatures, spec: FeatureSpec, *, stem: bool) -> np.ndarray:
    """Return features (cases, channels, features), equal to those of `models.pooling.pool_tokens`."""
    depth = layers.tokens.shape[2] - 2
    check_pooling(depth, layer=spec.layer, pooling=spec.pooling)

    def flat(tokens: np.ndarray) -> np.ndarray:
        return tokens.reshape(*tokens.shape[:2], -1)

    if spec.pooling in ALL_LAYERS:
        every = [flat(layers.tokens[:, :, 0, 1:]), flat(layers.tokens[:, :, 1:-1])]
        return np.concatenate(every + [layers.stem] * (stem and spec.pooling == "all_layers+stem"), axis=-1)
    tokens = layers.tokens[:, :, depth + 1 if spec.layer is None else spec.layer]
    return flat({"cls": tokens[:, :, :1], "mean": tokens[:, :, 1:], "cls+mean": tokens}[spec.pooling])


def encoder_digest(encoder: Encoder) -> str:
    """Return the SHA-256 of the weights and of the options that determine features."""
    config = encoder.config
    about = [
        dataclasses.asdict(config.model),
        encoder.input_lengths,
        encoder.num_window_offsets,
        config.evaluation.length_buckets,
        encoder.diff_orders,
        config.evaluation.channel_differences,
        config.evaluation.precision,
        *((config.evaluation.channel_means, config.evaluation.channel_stds) if config.evaluation.normalise == "dataset" else ()),
        config.data.max_length,
    ]
    parts = [json.dumps(about, sort_keys=True, default=list).encode()]
    leaves = jax.tree_util.tree_leaves_with_path(encoder.variables)
    parts += [part for path, leaf in leaves for part in (jax.tree_util.keystr(path).encode(), np.asarray(leaf).tobytes())]
    return digest(parts)


def cases_digest(cases: Cases) -> str:
    """Return the SHA-256 of series and labels."""
    labels = [] if cases.labels is None else [str(label).encode() for label in cases.labels]
    series = [part for case in cases.series for part in (str((case.shape, case.dtype)).encode(), case.tobytes())]
    return digest(series + labels)


def digest(parts: list[bytes]) -> str:
    """Return the SHA-256 of the parts and their lengths."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()


def encode_cases(encoder: Encoder, cases: Cases, **options) -> FeatureSet:
    """Return features of cases; `options` are those of `Encoder.embed`.

    Raises:
        InputError: the options do not give one vector per case.
    """
    features = encoder.embed(cases.series, **options)
    if features.ndim != 2:
        raise InputError(f"channels {options['channels']!r} does not give one vector per case; choose mean or concat")
    return FeatureSet(features, cases.labels)


def raw_features(cases: Cases, *, length: int) -> FeatureSet:
    """Return the series themselves, resized to one length, channels concatenated."""
    channels = resize_series([channel for case in cases.series for channel in case], length)
    return FeatureSet(channels.reshape(len(cases.series), -1), cases.labels)
