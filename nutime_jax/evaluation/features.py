"""Frozen features of a labelled set, and the raw series as features, for comparison."""

from dataclasses import dataclass

import numpy as np

from nutime_jax.data.archives import Cases, SetFiles
from nutime_jax.encoder import Encoder, resize_series


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
    """Reads both default splits of a set."""
    return Task(files.name, files.read("train"), files.read("test"))


def encode_cases(encoder: Encoder, cases: Cases, **options) -> Split:
    """Features of cases; `options` are those of `Encoder.embed`."""
    return Split(encoder.embed(cases.series, **options), cases.labels)


def raw_cases(cases: Cases, *, length: int) -> Split:
    """The series themselves, resized to one length, channels side by side."""
    channels = resize_series([channel for case in cases.series for channel in case], length)
    return Split(channels.reshape(len(cases.series), -1), cases.labels)
