"""Saved classifiers of `nutime fit`: fine-tuned networks and probes."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from nutime_jax.bundle import load_bundle
from nutime_jax.config import PretrainConfig, TuningSettings, from_dict
from nutime_jax.errors import InputError
from nutime_jax.finetuning.probe import KIND, SCHEMA, ProbeClassifier, probe_from_bundle

if TYPE_CHECKING:
    from nutime_jax.finetuning.classifier import FineTunedClassifier


def load_classifier(folder: str | os.PathLike) -> "FineTunedClassifier | ProbeClassifier":
    """Load a classifier that `save` or `nutime fit` wrote.

    Raises:
        InputError: the folder contains no classifier, a classifier of another schema, or a corrupt one.
    """
    about, arrays, _ = load_bundle(folder, kind=KIND, schema=SCHEMA, writer="`nutime fit`")
    try:
        return probe_from_bundle(about, arrays) if "probe" in about else _fine_tuned_from_bundle(about, arrays)
    except (KeyError, TypeError, AttributeError) as error:  # a bundle of something else
        raise InputError(f"{folder} is corrupt: its config.json does not describe a classifier ({error}). Use another copy.") from error


def _fine_tuned_from_bundle(about: dict[str, Any], leaves: dict[str, np.ndarray]) -> "FineTunedClassifier":
    from nutime_jax.finetuning.channels import ChannelMap
    from nutime_jax.finetuning.classifier import FineTunedClassifier, TrainingRecord  # needs the extra `train`

    arrays: dict[str, dict] = {"members": {}, "shared": {}}
    for name, leaf in leaves.items():
        kind, _, rest = name.partition("/")
        arrays[kind][rest] = leaf
    return FineTunedClassifier(
        config=from_dict(PretrainConfig, about["encoder"]),
        settings=TuningSettings(**about["settings"]),
        classes_=np.asarray(about["classes"]),
        channels=ChannelMap(**{name: _tuples(value) for name, value in about["channels"].items()}),
        training=TrainingRecord(**{name: _tuples(value) for name, value in about["training"].items()}),
        **arrays,
    )


def _tuples(value):
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
