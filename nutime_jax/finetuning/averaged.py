"""Average of a fine-tuned network and a probe on frozen features."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nutime_jax.finetuning.base import Contents, SeriesClassifier
from nutime_jax.finetuning.classifier import FineTunedClassifier, TrainingRecord
from nutime_jax.finetuning.probe import ProbeClassifier

PARTS = ("tuned", "probe")
"""Names of the two classifiers, also in a bundle."""


@dataclass(frozen=True)
class AveragedClassifier(SeriesClassifier):
    """`SeriesClassifier` with the mean of the probabilities of two, which were fitted on the same cases."""

    tuned: FineTunedClassifier
    probe: ProbeClassifier

    @property
    def classes_(self) -> np.ndarray:
        """Labels as text, sorted."""
        return self.tuned.classes_

    @property
    def training(self) -> TrainingRecord:
        """Record of the training of the network. Its accuracies are those of the network alone."""
        return self.tuned.training

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (cases, classes); see `SeriesClassifier`."""
        return (self.tuned.predict_proba(X) + self.probe.predict_proba(X)) / 2

    def contents(self) -> Contents:
        """Return the contents of both, by `PARTS`."""
        parts = {name: getattr(self, name).contents() for name in PARTS}
        arrays = {f"{part}/{name}": leaf for part in PARTS for name, leaf in parts[part].arrays.items()}
        return Contents({part: parts[part].about for part in PARTS}, arrays)
