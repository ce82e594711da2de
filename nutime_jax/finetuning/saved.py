"""Saved classifiers of `nutime fit`: fine-tuned networks, probes, and averages of both."""

import os
from typing import TYPE_CHECKING, Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from nutime_jax.bundle import load_bundle
from nutime_jax.config import PretrainConfig, TuningSettings, from_dict
from nutime_jax.errors import InputError
from nutime_jax.finetuning.base import KIND, SCHEMA, SeriesClassifier
from nutime_jax.finetuning.probe import probe_from_bundle

if TYPE_CHECKING:
    from nutime_jax.finetuning.averaged import AveragedClassifier
    from nutime_jax.finetuning.channels import ChannelMap
    from nutime_jax.finetuning.classifier import FineTunedClassifier


def load_classifier(folder: str | os.PathLike) -> SeriesClassifier:
    """Load a classifier that `save` or `nutime fit` wrote.

    Raises:
        InputError: the folder contains no classifier, a classifier of another schema, or a corrupt one.
    """
    about, arrays, _ = load_bundle(folder, kind=KIND, schema=SCHEMA, writer="`nutime fit`")
    try:
        classifier = _from_bundle(about, arrays)
        _check_classes(classifier.classes_)
        return classifier
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, flax.errors.FlaxError) as error:  # a bundle of something else
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is corrupt: its config.json does not describe a classifier ({error}). Use another copy.") from error


def _from_bundle(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> SeriesClassifier:
    if "tuned" in about:
        return _averaged_from_bundle(about, arrays)
    return probe_from_bundle(about, arrays) if "probe" in about else _fine_tuned_from_bundle(about, arrays)


def _averaged_from_bundle(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> "AveragedClassifier":
    from nutime_jax.finetuning.averaged import PARTS, AveragedClassifier  # needs the extra `train`

    parts = _group_by_prefix(arrays, PARTS)
    tuned = _fine_tuned_from_bundle(about["tuned"], parts["tuned"])
    classifier = AveragedClassifier(tuned, probe_from_bundle(about["probe"], parts["probe"]))
    if not np.array_equal(tuned.classes_, classifier.probe.classes_):
        raise ValueError("its two classifiers have different classes")
    return classifier


def _fine_tuned_from_bundle(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> "FineTunedClassifier":
    from nutime_jax.finetuning.channels import ChannelMap
    from nutime_jax.finetuning.classifier import FineTunedClassifier, TrainingRecord  # needs the extra `train`

    classifier = FineTunedClassifier(
        config=from_dict(PretrainConfig, about["encoder"]),
        settings=TuningSettings(**about["settings"]),
        classes_=np.asarray(about["classes"]),
        channels=ChannelMap(**{name: _tuples(value) for name, value in about["channels"].items()}),
        training=TrainingRecord(**{name: _tuples(value) for name, value in about["training"].items()}),
        **_group_by_prefix(arrays, ("members", "shared")),
    )
    _check_channels(classifier.channels)
    _check_shapes(classifier)
    return classifier


def _group_by_prefix(arrays: dict[str, np.ndarray], prefixes: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """Return prefix -> arrays by the rest of their names, "prefix/rest". Raise KeyError for other prefixes."""
    groups: dict[str, dict] = {prefix: {} for prefix in prefixes}
    for name, leaf in arrays.items():
        prefix, _, rest = name.partition("/")
        groups[prefix][rest] = leaf
    return groups


def _check_classes(classes: np.ndarray) -> None:
    if classes.ndim != 1 or classes.dtype.kind != "U" or not 0 < len(classes) == len(set(classes.tolist())):
        raise ValueError("its classes are not different texts")


def _check_channels(channels: "ChannelMap") -> None:
    rows = {len(row) for row in channels.weight} - {channels.count}
    if not channels.channels or rows or len(channels.bias) != len(channels.weight) or not set(channels.kept) <= set(range(channels.count)):
        raise ValueError("its channels do not exist")


def _check_shapes(classifier: "FineTunedClassifier") -> None:
    """Raise ValueError unless the arrays are those of the network that the configuration describes."""
    size = (2, classifier.channels.channels, classifier.config.length)
    expected = flatten_dict(jax.eval_shape(lambda: classifier.network.init(jax.random.key(0), jnp.zeros(size))), sep="/")
    shapes = {name: leaf.shape for name, leaf in expected.items()}
    shapes |= {name: (*shape[:-1], len(classifier.classes_)) for name, shape in shapes.items() if name.startswith("params/head/")}
    count = len(next(iter(classifier.members.values()), ()))
    actual = {name: leaf.shape for name, leaf in classifier.shared.items()}
    actual |= {name: leaf.shape[1:] if leaf.shape[:1] == (count,) else None for name, leaf in classifier.members.items()}
    for name in sorted(shapes.keys() | actual.keys()):
        if shapes.get(name) != actual.get(name):
            raise ValueError(f"{name} has shape {actual.get(name)}, not {shapes.get(name)}")


def _tuples(value):
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
