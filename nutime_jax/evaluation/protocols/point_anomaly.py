"""Detection of anomalous time points: a score per time point, and its metrics."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, precision_recall_curve

from nutime_jax.data.point_anomaly import PointAnomalyRecord, PointAnomalySeries
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import nearest_distances

QUANTILE = 0.999
"""Threshold as a quantile of the training scores, if no training point is labelled anomalous."""

BLOCKS = 8
"""Number of blocks of time of the training half, each scored by the others."""


class PointScores(NamedTuple):
    """Scores of the time points of both halves; anomalous points score high."""

    train: Float[np.ndarray, " train"]
    test: Float[np.ndarray, " test"]


Scorer = Callable[[PointAnomalySeries], PointScores]


def point_metrics(scores: PointScores, series: PointAnomalySeries, *, selection: str = "train") -> dict[str, float]:
    """Return metrics of scores over the time points of the test half.

    An alarm is a score above the threshold with the best F1 on the training half, or above a quantile of its scores if it has
    no anomaly.

    "f1_adjusted" is the point-adjusted F1 of the literature: one alarm in an anomalous segment marks the full segment. **Do
    not rely on it**: random alarms hit long segments, so random scores reach values that papers report as state of the art
    (Kim et al., AAAI 2022). Use it to compare with published values only.

    Args:
        selection: "train", or "test" for the threshold with the best F1 on the test half, as in the literature; it is not
            available in practice, and reports mark it.

    Returns:
        "auc_pr" (average precision; "anomalies" at chance level), "f1", "precision" and "recall" over time points,
        "f1_adjusted", and "anomalies": fraction of anomalous time points in the test half.

    Raises:
        InputError: the test half has no anomaly, or an option is unknown.
    """
    labels = series.test.labels
    if not labels.any():
        raise InputError(f"series {series.name} has no anomaly in its test half; leave it out of the evaluation")
    if selection not in ("train", "test"):
        raise InputError(f"selection {selection!r} is unknown; choose train or test")
    chosen = (scores.train, series.train) if selection == "train" else (scores.test, series.test)
    alarms = scores.test > choose_threshold(chosen[0], chosen[1].labels)
    precision, recall, f1 = point_f1(alarms, labels)
    return {
        "auc_pr": float(average_precision_score(labels, scores.test)),
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "f1_adjusted": point_f1(point_adjust(alarms, labels), labels)[2],
        "anomalies": float(labels.mean()),
    }


def choose_threshold(scores: Float[np.ndarray, " time"], labels: Bool[np.ndarray, " time"]) -> float:
    """Return the threshold with the best F1; the QUANTILE of the scores without labelled anomalies."""
    if not labels.any():
        return float(np.quantile(scores, QUANTILE))
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return float(np.nextafter(thresholds[f1[:-1].argmax()], -np.inf))


def point_f1(alarms: Bool[np.ndarray, " time"], labels: Bool[np.ndarray, " time"]) -> tuple[float, float, float]:
    """Return precision, recall and F1 over time points; 0 without alarms."""
    hits = int((alarms & labels).sum())
    precision, recall = hits / max(int(alarms.sum()), 1), hits / max(int(labels.sum()), 1)
    return precision, recall, 2 * hits / max(int(alarms.sum()) + int(labels.sum()), 1)


def point_adjust(alarms: Bool[np.ndarray, " time"], labels: Bool[np.ndarray, " time"]) -> Bool[np.ndarray, " time"]:
    """Return alarms after point adjustment: an alarm in an anomalous segment marks all its points."""
    segments = np.cumsum(np.diff(labels.astype(np.int8), prepend=0) == 1) * labels
    found = np.unique(segments[alarms & labels])
    return alarms | (labels & np.isin(segments, found))


def window_starts(points: int, *, window: int, stride: int) -> np.ndarray:
    """Return starts of windows, `stride` apart, with a last window at the end, so that windows cover all points.

    Raises:
        InputError: the series is shorter than a window, or strides leave gaps.
    """
    if not 1 <= stride <= window:
        raise InputError(f"windows of {window} points every {stride} points leave gaps or do not move; choose a stride of 1 to {window}")
    if points < window:
        raise InputError(f"a series of {points} points has no window of {window}; choose a shorter window")
    starts = np.arange(0, points - window + 1, stride)
    return starts if starts[-1] == points - window else np.append(starts, points - window)


def window_to_point_scores(scores: np.ndarray, starts: np.ndarray, *, window: int, points: int) -> Float[np.ndarray, " {points}"]:
    """Return the score of every time point: the mean over the windows that contain it."""
    total, count = np.zeros(points + 1), np.zeros(points + 1)
    for array, values in ((total, scores), (count, np.ones(len(scores)))):
        np.add.at(array, starts, values)
        np.subtract.at(array, starts + window, values)
    return (np.cumsum(total) / np.cumsum(count).clip(1))[:-1]


def residual_scores(series: PointAnomalySeries) -> PointScores:
    """Baseline: absolute difference of every point from the previous one."""
    return PointScores(*(np.abs(np.diff(half.values.astype(np.float64), prepend=half.values[:1])) for half in (series.train, series.test)))


def encoder_scores(
    series: PointAnomalySeries,
    *,
    encoder: Encoder,
    window: int = 32,
    stride: int = 8,
    neighbours: int = 5,
    reference: int = 2048,
    local: Scorer | None = residual_scores,
    **options,
) -> PointScores:
    """Score time points by distances of window features from normal windows of the training half.

    The score of a window is its mean distance to the nearest of at most `reference` windows without anomaly, evenly spaced
    over the training half, in standardised features. Training windows are compared with other BLOCKS of time only: compared
    with itself or with overlapping windows, a window would look more normal than any test window.

    Args:
        window, stride: length of the windows, and distance of their starts, in time points.
        local: scores to add, both divided by their 99th percentile over the training half, since features do not locate an
            anomaly within a window. Mean average precision on the training halves of the 12 KPI series: untrained small
            encoder 0.31, residuals 0.28, their sum 0.39.
        options: those of `Encoder.embed`.

    Raises:
        InputError: a half is shorter than a window, or too few training windows are free of anomalies.
    """
    encoder = encoder.fit_normalisation(series.train.values[None])
    train_starts, train = _embed_windows(series.train, encoder, window=window, stride=stride, **options)
    test_starts, test = _embed_windows(series.test, encoder, window=window, stride=stride, **options)
    clean = np.flatnonzero(~np.lib.stride_tricks.sliding_window_view(series.train.labels, window)[train_starts].any(1))
    if not len(clean):
        raise InputError(f"series {series.name} has no training window without anomaly; choose shorter windows")
    kept = clean[np.unique(np.linspace(0, len(clean) - 1, min(reference, len(clean))).astype(int))]
    mean, std = train[kept].mean(0), train[kept].std(0)
    scale = 1 / np.where(std > 1e-6 * np.abs(mean).clip(1e-6), std, 1)
    train, test = (train - mean) * scale, (test - mean) * scale
    train_scores = _score_blocks(train, train_starts, kept, window=window, neighbours=neighbours, name=series.name)
    test_scores = _distances(test, train[kept], neighbours)
    scores = PointScores(
        train=window_to_point_scores(train_scores, train_starts, window=window, points=len(series.train.values)),
        test=window_to_point_scores(test_scores, test_starts, window=window, points=len(series.test.values)),
    )
    return add_scores(scores, local(series)) if local else scores


def _embed_windows(
    half: PointAnomalyRecord, encoder: Encoder, *, window: int, stride: int, **options
) -> tuple[np.ndarray, Float[np.ndarray, "windows features"]]:
    """Return starts and features of the windows of a half."""
    starts = window_starts(len(half.values), window=window, stride=stride)
    return starts, encoder.embed(np.lib.stride_tricks.sliding_window_view(half.values, window)[starts], **options)


def _score_blocks(
    features: np.ndarray, starts: np.ndarray, kept: np.ndarray, *, window: int, neighbours: int, name: str
) -> Float[np.ndarray, " windows"]:
    """Return scores of training windows, by reference windows that do not overlap their block of time."""
    parts = []
    for block in np.array_split(np.arange(len(starts)), min(BLOCKS, len(starts))):
        begin, end = starts[block[0]], starts[block[-1]] + window
        others = kept[(starts[kept] + window <= begin) | (starts[kept] >= end)]
        if not len(others):
            raise InputError(f"series {name} has no windows to compare windows with; choose shorter ones")
        parts.append(_distances(features[block], features[others], neighbours))
    return np.concatenate(parts)


def _distances(features: np.ndarray, others: np.ndarray, neighbours: int) -> np.ndarray:
    return nearest_distances(features, others, count=min(neighbours, len(others))).mean(1)


def add_scores(one: PointScores, other: PointScores) -> PointScores:
    """Return the sum of two scores, each divided by its 99th percentile over the training half."""
    units = [max(float(np.quantile(scores.train, 0.99)), np.finfo(np.float32).tiny) for scores in (one, other)]
    return PointScores(*(a / units[0] + b / units[1] for a, b in zip(one, other, strict=True)))


def zscore_scores(series: PointAnomalySeries, *, window: int = 128) -> PointScores:
    """Baseline: z-score of every point, by mean and standard deviation of the previous `window` points."""
    floor = 1e-3 * float(series.train.values.std(dtype=np.float64)) or 1.0
    return PointScores(*(_moving_zscores(half, window, floor) for half in (series.train, series.test)))


def _moving_zscores(half: PointAnomalyRecord, window: int, floor: float) -> np.ndarray:
    """Return z-scores with standard deviations of at least `floor`. The first point scores 0."""
    values = half.values.astype(np.float64)
    values = values - values.mean()
    ends = np.arange(len(values))
    begins = np.maximum(ends - window, 0)
    counts = np.maximum(ends - begins, 1)
    first, second = (np.concatenate([[0.0], np.cumsum(values**power)]) for power in (1, 2))
    mean = (first[ends] - first[begins]) / counts
    std = np.sqrt(np.maximum((second[ends] - second[begins]) / counts - mean**2, 0))
    scores = np.abs(values - mean) / np.maximum(std, floor)
    scores[0] = 0
    return scores
