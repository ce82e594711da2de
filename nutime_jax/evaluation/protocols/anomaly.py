"""Anomalous cases of a labelled set: how far the cases of other classes are from the normal ones, in features."""

from collections.abc import Callable

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import nearest_distances, stratified_folds
from nutime_jax.evaluation.features import FeatureSet

NEIGHBOURS = 5
QUANTILE = 0.95
FOLDS = 5


def anomaly_metrics(
    train: FeatureSet, test: FeatureSet, *, normal: str | None = None, detector: str = "knn", quantile: float = QUANTILE
) -> dict[str, float]:
    """How well a detector that knows normal training cases alone tells the test cases of all other classes.

    The release (`test_anomaly.json`: FD-B, undamaged bearings against two kinds of damage) trains a linear head on frozen
    features with the labels of both sides, which is classification: the probe "logistic" on binary labels. Here training
    cases of other classes are left out, labels of the test split only score, and an alarm is a score above a quantile of
    those of normal training cases, each scored by a detector that did not see it (five folds).

    Args:
        normal: the class that is normal; the most frequent of the training split if none is named.
        detector: "knn" (mean distance to the 5 nearest normal cases), "mahalanobis" (shrunk covariance) or "lof" (local
            outlier factor), on features standardised by the normal cases.
        quantile: of the scores of normal training cases that are taken for normal.

    Returns:
        "roc_auc", "auc_pr" (average precision; a blind detector has `outliers`), "f1" of the alarms, `outliers`, the share
        of test cases that are not normal.

    Raises:
        InputError: fewer than two normal training cases, a test split of one kind alone, or an unknown option.
    """
    normal = most_frequent(train.labels) if normal is None else normal
    known = np.asarray(train.features, np.float64)[train.labels == normal]
    if len(known) < 2:
        raise InputError(f"class {str(normal)!r} has {len(known)} training cases; what is normal takes two or more to learn")
    outlying = test.labels != normal
    if outlying.all() or not outlying.any():
        kind = "no normal" if outlying.all() else "only normal"
        raise InputError(f"the test split has {kind} cases (class {str(normal)!r}); scores need both kinds")
    if detector not in DETECTORS:
        raise InputError(f"detector {detector!r} is unknown; choose one of {', '.join(DETECTORS)}")
    if not 0 < quantile < 1:
        raise InputError(f"quantile {quantile} is not between 0 and 1")
    scores = score_cases(known, test.features, detector=detector)
    threshold = np.quantile(score_held_out(known, detector=detector), quantile)
    return {
        "roc_auc": float(roc_auc_score(outlying, scores)),
        "auc_pr": float(average_precision_score(outlying, scores)),
        "f1": float(f1_score(outlying, scores > threshold, zero_division=0)),
        "outliers": float(outlying.mean()),
    }


def most_frequent(labels: np.ndarray) -> str:
    """The most frequent label, the first in order of those that are as frequent."""
    classes, counts = np.unique(labels, return_counts=True)
    return classes[counts.argmax()]


def score_cases(known: np.ndarray, features: np.ndarray, *, detector: str) -> np.ndarray:
    """Scores of cases, high where they are unlike the known ones."""
    scaler = StandardScaler().fit(known)
    return DETECTORS[detector](scaler.transform(known), scaler.transform(np.asarray(features, np.float64)))


def score_held_out(known: np.ndarray, *, detector: str) -> np.ndarray:
    """Score of every known case by a detector that knows those of the other folds."""
    folds = stratified_folds(np.zeros(len(known), np.int64), folds=min(FOLDS, len(known)))
    scores = np.empty(len(known))
    for fold in np.unique(folds):
        scores[folds == fold] = score_cases(known[folds != fold], known[folds == fold], detector=detector)
    return scores


def _neighbour_scores(known: np.ndarray, features: np.ndarray) -> np.ndarray:
    return nearest_distances(features, known, count=min(NEIGHBOURS, len(known))).mean(1)


def _mahalanobis_scores(known: np.ndarray, features: np.ndarray) -> np.ndarray:
    if len(known) < 2:  # one case has no covariance
        return _neighbour_scores(known, features)
    covariance = ledoit_wolf(known, assume_centered=True)[0]
    floor = np.finfo(np.float64).eps * max(np.trace(covariance), 1.0)  # known cases that are all alike
    factor = np.linalg.cholesky(covariance + floor * np.eye(len(covariance)))
    return np.linalg.norm(np.linalg.solve(factor, features.T), axis=0)


def _density_scores(known: np.ndarray, features: np.ndarray) -> np.ndarray:
    if len(known) < 3:  # no neighbour has a neighbourhood of its own
        return _neighbour_scores(known, features)
    return -LocalOutlierFactor(min(20, len(known) - 1), novelty=True).fit(known).score_samples(features)


DETECTORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "knn": _neighbour_scores,
    "mahalanobis": _mahalanobis_scores,
    "lof": _density_scores,
}
