"""Probes of frozen features: what a simple classifier makes of them. Test cases choose nothing."""

import warnings

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import Split


def make_probe(name: str) -> Pipeline:
    """A probe over standardised features: "ridge" (penalty by leave-one-out within the training cases) or "1nn"."""
    if name == "ridge":
        return make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 3, 10)))
    if name == "1nn":
        return make_pipeline(StandardScaler(), KNeighborsClassifier(1))
    raise InputError(f"probe {name!r} is unknown; choose ridge or 1nn")


def test_accuracy(name: str, train: Split, test: Split) -> float:
    """Share of test cases that a probe fitted on the training cases labels rightly."""
    return float(make_probe(name).fit(train.features, train.labels).score(test.features, test.labels))


def cross_validated_accuracy(name: str, train: Split, *, folds: int = 5) -> float:
    """Accuracy by stratified folds within the training cases: what may guide a choice, since no test case is seen."""
    counts = np.unique(train.labels, return_counts=True)[1]
    if counts.max() < 2:
        raise InputError("every class has one case; cross-validation needs a class of two or more")
    splitter = StratifiedKFold(max(2, min(folds, int(counts.min()))), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, message="The least populated class")
        warnings.filterwarnings("ignore", category=UndefinedMetricWarning)
        return float(cross_val_score(make_probe(name), train.features, train.labels, cv=splitter).mean())


def nearest_neighbour_accuracy(train: Split, test: Split) -> float:
    """1-NN with Euclidean distance on features as they are: the oldest baseline for raw series."""
    return float(KNeighborsClassifier(1).fit(train.features, train.labels).score(test.features, test.labels))
