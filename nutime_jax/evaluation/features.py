"""Frozen features of a labelled set, and the raw series as features, for comparison."""

from dataclasses import dataclass

import numpy as np

from nutime_jax.data.archives import Cases, SetFiles
from nutime_jax.encoder import Encoder, resize_series
from nutime_jax.errors import InputError


@dataclass(frozen=True)
class Split:
    """Features (cases, features) and labels (cases,) of one split of a set."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Task:
    """A set to classify: its name, its cases for training, and those for testing."""

    name: str
    train: Cases
    test: Cases


def read_task(files: SetFiles) -> Task:
    """Reads both default splits of a set.

    Raises:
        InputError: a split is absent or cannot be read, or its cases have no labels.
    """
    task = Task(files.name, files.read("train"), files.read("test"))
    if task.train.labels is None or task.test.labels is None:
        raise InputError(f"set {files.name} has no labels; an evaluation needs them")
    return task


def encode_cases(encoder: Encoder, cases: Cases, **options) -> Split:
    """Features of cases; `options` are those of `Encoder.embed`.

    Raises:
        InputError: the options do not give one vector a case.
    """
    features = encoder.embed(cases.series, **options)
    if features.ndim != 2:
        raise InputError(f"channels {options['channels']!r} gives no single vector a case; choose mean or concat")
    return Split(features, cases.labels)


def raw_cases(cases: Cases, *, length: int) -> Split:
    """The series themselves, resized to one length, channels side by side."""
    channels = resize_series([channel for case in cases.series for channel in case], length)
    return Split(channels.reshape(len(cases.series), -1), cases.labels)
