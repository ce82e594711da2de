"""Probes: simple classifiers of frozen features. Test cases choose nothing."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from sklearn.base import ClassifierMixin, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_limits

from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import (
    CrossValidatedLogisticRegression,
    LeaveOneOutNeighbours,
    LeaveOneOutRidge,
    stratified_folds,
)
from nutime_jax.evaluation.features import FeatureSet, Task, encode_cases
from nutime_jax.evaluation.protocols.baselines import baseline_metrics
from nutime_jax.evaluation.results import Result

PROBES: dict[str, Callable[[], ClassifierMixin]] = {
    "ridge": LeaveOneOutRidge,
    "logistic": CrossValidatedLogisticRegression,
    "knn": LeaveOneOutNeighbours,
    "1nn": lambda: KNeighborsClassifier(1),
    "forest": lambda: RandomForestClassifier(200, random_state=0),
}
RAW = "raw_1nn"
"""Baseline of `compare`."""
SCALERS: dict[str, Callable[[], TransformerMixin]] = {
    "none": lambda: FunctionTransformer(),
    "standard": StandardScaler,
    "minmax": MinMaxScaler,
}


def make_probe(name: str, *, scaler: str = "standard") -> Pipeline:
    """Return a scikit-learn pipeline of a scaler and a probe, which selects its hyperparameters in `fit`.

    Args:
        name: "ridge" (penalty by leave-one-out), "logistic" (penalty by folds), "knn" (neighbours and metric by
            leave-one-out), "1nn" (Euclidean) or "forest" (200 trees).
        scaler: "standard" (mean 0, variance 1), "minmax" (0 to 1) or "none", fitted with the probe.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PROBES:
        raise InputError(f"probe {name!r} is unknown; choose one of {', '.join(PROBES)}")
    if scaler not in SCALERS:
        raise InputError(f"scaler {scaler!r} is unknown; choose one of {', '.join(SCALERS)}")
    return make_pipeline(SCALERS[scaler](), PROBES[name]())


def probe_metrics(name: str, train: FeatureSet, test: FeatureSet, *, scaler: str = "standard") -> dict[str, float]:
    """Fit a probe on the training cases and score it on the test cases; see `make_probe`.

    Returns:
        "accuracy"; "f1": mean F1 of the classes among test labels and predictions; "train_cv", if the probe has it: accuracy
        on held-out training cases, on which choices may be based.

    Raises:
        InputError: the name is unknown, or the train split has a single class.
    """
    probe = make_probe(name, scaler=scaler)
    if len(np.unique(train.labels)) < 2:
        raise InputError(f"every training case has the label {str(train.labels[0])!r}; a probe needs two classes or more")
    with threadpool_limits(1):  # small matmuls: synchronising threads costs more than it saves
        predicted = probe.fit(train.features, train.labels).predict(test.features)
    held_out = getattr(probe[-1], "train_accuracy_", math.nan)
    metrics = {
        "accuracy": float(np.mean(predicted == test.labels)),
        "f1": float(f1_score(test.labels, predicted, average="macro", zero_division=0)),
    }
    return metrics if math.isnan(held_out) else {**metrics, "train_cv": held_out}


def cross_validated_accuracy(name: str, train: FeatureSet, *, folds: int = 5, scaler: str = "standard") -> float:
    """Return the mean accuracy over stratified folds of the training cases, on which choices may be based.

    Raises:
        InputError: every class has one case.
    """
    codes, counts = np.unique(train.labels, return_inverse=True, return_counts=True)[1:]
    if counts.max() < 2:
        raise InputError("every class has one case; cross-validation needs a class of two or more")
    fold_of = stratified_folds(codes, folds=max(2, min(folds, int(counts.min()))))
    scores = []
    for fold in np.unique(fold_of):
        inside = fold_of != fold
        if len(np.unique(codes[inside])) > 1:
            probe = make_probe(name, scaler=scaler).fit(train.features[inside], train.labels[inside])
            scores.append(probe.score(train.features[~inside], train.labels[~inside]))
    return float(np.mean(scores))


def compare(encoders: Mapping[str, Encoder], task: Task, **options) -> list[Result]:
    """Return the accuracy of every encoder with ridge and 1-NN probes, and of 1-NN on the raw series.

    Args:
        encoders: name of the method -> encoder.
        task: a labelled dataset.
        options: those of `Encoder.embed`.
    """
    setting = " ".join(f"{name}={value}" for name, value in options.items())
    sizes = {"train_cases": len(task.train.labels), "test_cases": len(task.test.labels)}
    results = []

    def add(method: str, protocol: str, setting: str, compute: Callable[[], dict[str, float]]) -> None:
        started = time.perf_counter()
        accuracy = compute()["accuracy"]
        seconds = time.perf_counter() - started
        results.append(Result(method, task.name, protocol, setting, 0, "accuracy", accuracy, seconds=seconds, **sizes))

    for method, encoder in encoders.items():
        train, test = (encode_cases(encoder, cases, **options) for cases in (task.train, task.test))
        for probe in ("ridge", "1nn"):
            add(method, probe, setting, partial(probe_metrics, probe, train, test))
    add(RAW, "baseline", "", partial(baseline_metrics, RAW, task.train, task.test, seed=0))
    return results


def format_accuracies(results: Sequence[Result], columns: Mapping[tuple[str, str], str]) -> str:
    """Return a text table of accuracies in percent: one line per dataset, and their mean.

    Args:
        columns: (method, protocol) -> heading.
    """
    values = {(result.dataset, result.method, result.protocol): 100 * result.value for result in results}
    names = list(dict.fromkeys(result.dataset for result in results))
    means = [f"{np.mean([values[name, *key] for name in names]):.1f}" for key in columns]
    lines = [["dataset", *columns.values()]]
    lines += [[name, *(f"{values[name, *key]:.1f}" for key in columns)] for name in names]
    lines += [[f"mean of {len(names)}", *means]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *rows, last = (
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in lines
    )
    rule = "-" * len(head)
    return "\n".join([head, rule, *rows, rule, last])
