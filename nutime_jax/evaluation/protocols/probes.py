"""Probes: simple classifiers of frozen features. Test cases choose nothing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_limits

from nutime_jax.data.datasets import Cases
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import (
    CrossValidatedLogisticRegression,
    LeaveOneOutKernelRidge,
    LeaveOneOutNeighbours,
    LeaveOneOutRidge,
    neighbour_accuracy,
    stratified_folds,
)
from nutime_jax.evaluation.features import FeatureSet, encode_cases
from nutime_jax.evaluation.results import class_metrics
from nutime_jax.finetuning.probe import ProbeClassifier

PROBES: dict[str, Callable[[], ClassifierMixin]] = {
    "kernel": LeaveOneOutKernelRidge,
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
    """Return a scikit-learn pipeline of a scaler and a probe, which selects its hyperparameters in `fit`.

    Args:
        name: "kernel" (ridge with a Gaussian kernel) or "ridge" (linear), with the penalty by leave-one-out; "logistic" (penalty by
            folds), "knn" (neighbours and metric by leave-one-out), "1nn" (Euclidean) or "forest" (200 trees).
        scaler: "standard" (mean 0, variance 1), "minmax" (0 to 1) or "none", fitted with the probe.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PROBES:
        raise InputError(f"probe {name!r} is unknown; choose one of {', '.join(PROBES)}")
    if scaler not in SCALERS:
        raise InputError(f"scaler {scaler!r} is unknown; choose one of {', '.join(SCALERS)}")
    return make_pipeline(SCALERS[scaler](), PROBES[name]())


def predict_with_probe(name: str, train: FeatureSet, features: np.ndarray, *, scaler: str = "standard") -> tuple[np.ndarray, float]:
    """Fit a probe on the training cases; see `make_probe`.

    Returns:
        Predicted labels of other features, (cases,), and the accuracy on held-out training cases; NaN if the probe has none.

    Raises:
        InputError: the name is unknown, or the train split has a single class.
    """
    probe = make_probe(name, scaler=scaler)
    if len(np.unique(train.labels)) < 2:
        raise InputError(f"every training case has the label {str(train.labels[0])!r}; a probe needs two classes or more")
    with threadpool_limits(1):  # small matmuls: synchronising threads costs more than it saves
        predicted = probe.fit(train.features, train.labels).predict(features)
    return predicted, getattr(probe[-1], "train_accuracy_", math.nan)


def probe_metrics(name: str, train: FeatureSet, test: FeatureSet, *, scaler: str = "standard") -> dict[str, float]:
    """Fit a probe on the training cases and score it on the test cases; see `predict_with_probe`.

    Returns:
        `results.class_metrics`; "train_cv", if the probe has it: accuracy on held-out training cases, on which choices may be
        based.
    """
    predicted, held_out = predict_with_probe(name, train, test.features, scaler=scaler)
    metrics = class_metrics(test.labels, predicted)
    return metrics if math.isnan(held_out) else {**metrics, "train_cv": held_out}


def monitor_accuracy(train: FeatureSet, *, probe: str, temperature: float) -> float:
    """Return the accuracy of `run.probe` on held-out training cases: "ridge" by folds, "knn" by leave-one-out.

    Raises:
        InputError: every class has one case.
    """
    if probe == "ridge":
        return cross_validated_accuracy(probe, train)
    _check_repeated_class(train)
    return neighbour_accuracy(train.features, train.labels, temperature=temperature)


def _check_repeated_class(train: FeatureSet) -> None:
    if len(set(train.labels)) == len(train.labels):
        raise InputError("every class has one case; cross-validation needs a class of two or more")


def cross_validated_accuracy(name: str, train: FeatureSet, *, folds: int = 5, scaler: str = "standard") -> float:
    """Return the mean accuracy over stratified folds of the training cases, on which choices may be based.

    Raises:
        InputError: every class has one case.
    """
    _check_repeated_class(train)
    codes, counts = np.unique(train.labels, return_inverse=True, return_counts=True)[1:]
    fold_of = stratified_folds(codes, folds=max(2, min(folds, int(counts.min()))))
    scores = []
    for fold in np.unique(fold_of):
        inside = fold_of != fold
        if len(np.unique(codes[inside])) > 1:
            probe = make_probe(name, scaler=scaler).fit(train.features[inside], train.labels[inside])
            scores.append(probe.score(train.features[~inside], train.labels[~inside]))
    return float(np.mean(scores))


def fit_probe(encoder: Encoder, train: Cases, *, probe: str = "kernel", **options: Any) -> ProbeClassifier:
    """Fit a probe on frozen features of labelled cases, which can be saved with its encoder.

    Args:
        encoder: the encoder.
        train: labelled cases.
        probe: "kernel", "ridge" or "logistic", on standardised features; see `make_probe`.
        options: layer, pooling and channels, as arguments of `Encoder.embed`.

    Raises:
        InputError: the probe cannot be saved, or the cases have no labels or a single class.
    """
    if probe not in LOGITS:
        raise InputError(f"probe {probe!r} cannot be saved; choose one of {', '.join(LOGITS)}")
    if train.labels is None or len(set(train.labels)) < 2:
        raise InputError("the training cases have fewer than two classes; a probe needs two or more")
    options = {"layer": None, "pooling": None, "channels": "concat", **options}
    encoder = encoder.fit_normalisation(train.series)
    features = encode_cases(encoder, train, **options)
    with threadpool_limits(1):
        scaler, fitted = make_probe(probe).fit(features.features, np.asarray(train.labels, str))
    weight, bias = LOGITS[probe](fitted)
    return ProbeClassifier(
        encoder=encoder,
        options=options,
        classes_=fitted.classes_,
        num_channels=len(train.series[0]),
        mean=scaler.mean_,
        scale=scaler.scale_,
        weight=weight,
        bias=bias,
        kernel=getattr(fitted, "kernel_", None),
    )


def _logistic_map(fitted: CrossValidatedLogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (features, classes) and bias of the logits; two classes have the logits 0 and that of the second."""
    weight, bias = fitted.axes_.T @ fitted.model_.coef_.T, fitted.model_.intercept_
    bias = bias - fitted.mean_ @ weight
    if len(fitted.classes_) > 2:
        return weight, bias
    return np.hstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])


def _ridge_map(fitted: LeaveOneOutRidge) -> tuple[np.ndarray, np.ndarray]:
    return fitted.sharpness_ * fitted.coef_.T, fitted.sharpness_ * fitted.intercept_


LOGITS: dict[str, Callable[[Any], tuple[np.ndarray, np.ndarray]]] = {"kernel": _ridge_map, "ridge": _ridge_map, "logistic": _logistic_map}
"""Probe that can be saved -> weight and bias of its logits, given the fitted probe."""
