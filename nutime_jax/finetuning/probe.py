"""Classifiers of a frozen encoder and a linear probe, saved as a bundle with checksums, without pickle."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.special import softmax

from nutime_jax.bundle import save_bundle
from nutime_jax.config import PretrainConfig, from_dict, to_dict
from nutime_jax.data.inputs import clean_cases
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError

KIND, SCHEMA = "classifier", 1
"""Kind and schema of the bundles of all classifiers."""
PREFIX = "encoder/"
"""Prefix of the arrays of the encoder in a bundle."""


@dataclasses.dataclass(frozen=True)
class ProbeClassifier:
    """Classifier of series: a linear map of frozen features to the logits of the classes.

    encoder: the encoder. options: layer, pooling and channels, as arguments of `Encoder.embed`.
    classes_: labels as text, sorted.
    num_channels: channels of a case.
    weight, bias: float64 (features, classes) and (classes,), of the logits.
    """

    encoder: Encoder
    options: dict[str, Any]
    classes_: np.ndarray
    num_channels: int
    weight: np.ndarray
    bias: np.ndarray

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label, (cases,)."""
        return self.classes_[self._logits(X).argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (cases, classes).

        Raises:
            InputError: X has another number of channels than the training cases.
        """
        return softmax(self._logits(X), axis=1)

    def accuracy(self, X: Any, labels: np.ndarray) -> float:
        """Return the fraction of cases with the correct label."""
        return float(np.mean(self.predict(X) == np.asarray(labels, str)))

    def _logits(self, X: Any) -> np.ndarray:
        cases = clean_cases(X)
        if len(cases[0]) != self.num_channels:
            raise InputError(f"case 0 has {len(cases[0])} channels; the classifier was fitted on {self.num_channels}")
        return self.encoder.embed(cases, **self.options).astype(np.float64) @ self.weight + self.bias

    def save(self, folder: str | os.PathLike) -> Path:
        """Write classifier and encoder atomically. An older classifier in the folder is replaced.

        Raises:
            InputError: the folder cannot be written, or contains anything else.
        """
        about = {
            "encoder": to_dict(self.encoder.config, encoder=True),
            "probe": {"options": self.options, "num_channels": self.num_channels},
            "classes": self.classes_.tolist(),
        }
        arrays = flatten_dict(jax.tree.map(np.asarray, self.encoder.variables), sep="/")
        arrays = {f"{PREFIX}{name}": leaf for name, leaf in arrays.items()} | {"weight": self.weight, "bias": self.bias}
        return save_bundle(folder, about, arrays, kind=KIND, schema=SCHEMA)


def probe_from_bundle(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> ProbeClassifier:
    """Return the classifier of a bundle that `ProbeClassifier.save` wrote."""
    variables = {name.removeprefix(PREFIX): leaf for name, leaf in arrays.items() if name.startswith(PREFIX)}
    return ProbeClassifier(
        encoder=Encoder(from_dict(PretrainConfig, about["encoder"]), unflatten_dict(variables, sep="/")),
        classes_=np.asarray(about["classes"]),
        weight=arrays["weight"],
        bias=arrays["bias"],
        **about["probe"],
    )
