"""Base class of the classifiers of series that are saved as bundles with checksums, without pickle."""

import abc
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.bundle import save_bundle

KIND, SCHEMA = "classifier", 1
"""Kind and schema of the bundles of all classifiers."""


class Contents(NamedTuple):
    """Content of the bundle of a classifier: description (JSON values) and arrays."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]


class SeriesClassifier(abc.ABC):
    """A fitted classifier of series, of `fit_probe`, `fine_tune`, `fit_average` or `load_classifier`.

    classes_: labels as text, sorted, in the order of the columns of `predict_proba`.
    """

    classes_: np.ndarray

    @abc.abstractmethod
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, (cases, classes).

        Args:
            X: series in any form of `data.inputs.read_series`.

        Raises:
            InputError: see `read_series`; or X has another number of channels than the training cases.
        """

    @abc.abstractmethod
    def contents(self) -> Contents:
        """Return what a bundle of the classifier contains."""

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each case, (cases,); see `predict_proba`."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def accuracy(self, X: Any, labels: np.ndarray) -> float:
        """Return the fraction of cases with the correct label."""
        return float(np.mean(self.predict(X) == np.asarray(labels, str)))

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the classifier atomically. An older classifier in the folder is replaced.

        Raises:
            InputError: the folder cannot be written, or contains anything else.
        """
        return save_bundle(folder, *self.contents(), kind=KIND, schema=SCHEMA)
