"""Probes of frozen features: what a simple classifier makes of them. Test cases choose nothing."""

import math
from collections.abc import Callable

import numpy as np
from sklearn.base import ClassifierMixin, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_limits

from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import (
    CrossValidatedLogisticRegression,
    LeaveOneOutNeighbours,
    LeaveOneOutRidge,
    stratified_folds,
)
from nutime_jax.evaluation.features import FeatureSet

PROBES: dict[str, Callable[[], ClassifierMixin]] = {
    "ridge": LeaveOneOutRidge,
    "logistic": CrossValidatedLogisticRegression,
    "knn": LeaveOneOutNeighbours,
    "1nn": lambda: KNeighborsClassifier(1),
    "forest": lambda: RandomForestClassifier(200, random_state=0),
}
SCALERS: dict[str, Callable[[], TransformerMixin]] = {
    "none": lambda: FunctionTransformer(),
    "standard": StandardScaler,
    "minmax": MinMaxScaler,
}


def make_probe(name: str, *, scaler: str = "standard") -> Pipeline:
    """A probe over scaled features, with the interface of scikit-learn; what it has to choose, `fit` chooses.

    Args:
        name: "ridge" (penalty by leave-one-out), "logistic" (penalty by folds), "knn" (neighbours and metric by
            leave-one-out), "1nn" (Euclidean) or "forest" (200 trees).
        scaler: "standard" (mean 0, variance 1), "minmax" (0 to 1) or "none", fitted with the probe.

    Raises:
        InputError: an unknown name.
    """
    if name not in PROBES:
        raise InputError(f"probe {name!r} is unknown; choose one of {', '.join(PROBES)}")
    if scaler not in SCALERS:
        raise InputError(f"scaler {scaler!r} is unknown; choose one of {', '.join(SCALERS)}")
    return make_pipeline(SCALERS[scaler](), PROBES[name]())


def probe_metrics(name: str, train: FeatureSet, test: FeatureSet, *, scaler: str = "standard") -> dict[str, float]:
    """Scores on the test cases of a probe that was fitted on the training cases; see `make_probe`.

    Returns:
        "accuracy"; "f1": the mean of the F1 of every class that is in the test labels or among the predictions; and
        "train_cv", where the probe knows it: its accuracy on training cases held out, what may guide a choice.

    Raises:
        InputError: an unknown name, or a training split of a single class.
    """
    probe = make_probe(name, scaler=scaler)
    if len(np.unique(train.labels)) < 2:
        raise InputError(f"every training case has the label {str(train.labels[0])!r}; a probe needs two classes or more")
    with threadpool_limits(1):  # small products: threads that wait for each other cost more than they do
        predicted = probe.fit(train.features, train.labels).predict(test.features)
    held_out = getattr(probe[-1], "train_accuracy_", math.nan)
    metrics = {
        "accuracy": float(np.mean(predicted == test.labels)),
        "f1": float(f1_score(test.labels, predicted, average="macro", zero_division=0)),
    }
    return metrics if math.isnan(held_out) else {**metrics, "train_cv": held_out}


def cross_validated_accuracy(name: str, train: FeatureSet, *, folds: int = 5, scaler: str = "standard") -> float:
    """Accuracy by stratified folds within the training cases: what may guide a choice, since no test case is seen.

    The mean over folds; a class of fewer cases than folds is in some of them only.

    Raises:
        InputError: every class has one case, so that no fold can tell.
    """
    codes, counts = np.unique(train.labels, return_inverse=True, return_counts=True)[1:]
    if counts.max() < 2:
        raise InputError("every class has one case; cross-validation needs a class of two or more")
    dealt = stratified_folds(codes, folds=max(2, min(folds, int(counts.min()))))
    scores = []
    for fold in np.unique(dealt):
        inside = dealt != fold
        if len(np.unique(codes[inside])) > 1:
            probe = make_probe(name, scaler=scaler).fit(train.features[inside], train.labels[inside])
            scores.append(probe.score(train.features[~inside], train.labels[~inside]))
    return float(np.mean(scores))
