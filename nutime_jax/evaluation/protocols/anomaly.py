"""Detection of anomalous cases: cases of one class are normal, distances are between features."""

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
    """Fit a detector on the normal training cases and score it on test cases of all classes.

    The official implementation (`test_anomaly.json`: FD-B, undamaged bearings and two types of damage) trains a linear head
    on labels of both sides, which is classification: the probe "logistic" on binary labels. Here training cases of other
    classes are not used, and test labels only score. An alarm is a score above a quantile of the held-out scores of normal
    training cases (five folds).

    Args:
        normal: the normal class; None is the most frequent class of the train split.
        detector: "knn" (mean distance to the 5 nearest normal cases), "mahalanobis" (shrunk covariance) or "lof" (local
            outlier factor), on features standardised by the normal cases.
        quantile: quantile of the held-out scores of normal training cases that is the threshold of alarms.

    Returns:
        "roc_auc", "auc_pr" (average precision; `outliers` at chance level), "f1" of the alarms, "outliers": fraction of test
        cases that are not normal.

    Raises:
        InputError: fewer than two normal training cases, a test split without normal or without other cases, an unknown option.
    """
    normal = most_frequent(train.labels) if normal is None else normal
    reference = np.asarray(train.features, np.float64)[train.labels == normal]
    if len(reference) < 2:
        raise InputError(f"class {str(normal)!r} has {len(reference)} normal training cases; a detector needs two or more")
    outlying = test.labels != normal
    if outlying.all() or not outlying.any():
        kind = "no normal" if outlying.all() else "only normal"
        raise InputError(f"the test split has {kind} cases (class {str(normal)!r}); scores need both kinds")
    if detector not in DETECTORS:
        raise InputError(f"detector {detector!r} is unknown; choose one of {', '.join(DETECTORS)}")
    if not 0 < quantile < 1:
        raise InputError(f"quantile {quantile} is not between 0 and 1")
    scores = score_cases(reference, test.features, detector=detector)
    threshold = np.quantile(score_held_out(reference, detector=detector), quantile)
    return {
        "roc_auc": float(roc_auc_score(outlying, scores)),
        "auc_pr": float(average_precision_score(outlying, scores)),
        "f1": float(f1_score(outlying, scores > threshold, zero_division=0)),
        "outliers": float(outlying.mean()),
    }


def most_frequent(labels: np.ndarray) -> str:
    """Return the most frequent label; the first of equally frequent labels in sorted order."""
    classes, counts = np.unique(labels, return_counts=True)
    return classes[counts.argmax()]


def score_cases(reference: np.ndarray, features: np.ndarray, *, detector: str) -> np.ndarray:
    """Return scores of cases; cases unlike the reference cases score high."""
    scaler = StandardScaler().fit(reference)
    return DETECTORS[detector](scaler.transform(reference), scaler.transform(np.asarray(features, np.float64)))


def score_held_out(reference: np.ndarray, *, detector: str) -> np.ndarray:
    """Return the score of every reference case by a detector fitted on the other folds."""
    folds = stratified_folds(np.zeros(len(reference), np.int64), folds=min(FOLDS, len(reference)))
    scores = np.empty(len(reference))
    for fold in np.unique(folds):
        scores[folds == fold] = score_cases(reference[folds != fold], reference[folds == fold], detector=detector)
    return scores


def _neighbour_scores(reference: np.ndarray, features: np.ndarray) -> np.ndarray:
    return nearest_distances(features, reference, count=min(NEIGHBOURS, len(reference))).mean(1)


def _mahalanobis_scores(reference: np.ndarray, features: np.ndarray) -> np.ndarray:
    if len(reference) < 2:  # no covariance
        return _neighbour_scores(reference, features)
    covariance = ledoit_wolf(reference, assume_centered=True)[0]
    floor = np.finfo(np.float64).eps * max(np.trace(covariance), 1.0)  # identical reference cases
    factor = np.linalg.cholesky(covariance + floor * np.eye(len(covariance)))
    return np.linalg.norm(np.linalg.solve(factor, features.T), axis=0)


def _density_scores(reference: np.ndarray, features: np.ndarray) -> np.ndarray:
    if len(reference) < 3:  # neighbours need neighbours
        return _neighbour_scores(reference, features)
    return -LocalOutlierFactor(min(20, len(reference) - 1), novelty=True).fit(reference).score_samples(features)


DETECTORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "knn": _neighbour_scores,
    "mahalanobis": _mahalanobis_scores,
    "lof": _density_scores,
}
