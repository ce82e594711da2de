"""Anomalous points of monitored series: scores of every point, and what they are worth."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, precision_recall_curve

from nutime_jax.data.point_anomaly import PointAnomalySeries, Record
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import nearest_distances

QUANTILE = 0.999
"""Of training scores that is taken for normal, where no training point is labelled anomalous."""

BLOCKS = 8
"""Of time, into which the training half is cut to be measured by itself."""


class PointScores(NamedTuple):
    """A score of every point of both halves, high where it is anomalous."""

    train: Float[np.ndarray, " train"]
    test: Float[np.ndarray, " test"]


Scorer = Callable[[PointAnomalySeries], PointScores]


def point_metrics(scores: PointScores, series: PointAnomalySeries, *, selection: str = "train") -> dict[str, float]:
    """What scores of points are worth.

    An alarm is a score above a threshold, the one of the best F1 on the training half (its labels are known; a quantile of
    its scores where it has no anomaly).

    "f1_adjusted" is the point-adjusted F1 of the literature: an anomalous segment counts as found whole once one of its
    points raises an alarm. **It is not to be trusted**: a long segment is found by almost any scatter of alarms, so that
    random scores reach values that papers report as state of the art (Kim et al., AAAI 2022). It stands here to be
    compared with what others report, never to choose anything.

    Args:
        selection: "train", or "test" for the threshold of the best F1 on the test half, which the literature reports and
            nobody has in practice: its rows are to be marked.

    Returns:
        "auc_pr" (average precision; a blind score has the share of anomalies), "f1", "precision" and "recall" over points,
        "f1_adjusted", and "anomalies", the share of test points that are anomalous.

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
    """The threshold above which alarms have the best F1; the QUANTILE of the scores where nothing is labelled."""
    if not labels.any():
        return float(np.quantile(scores, QUANTILE))
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return float(np.nextafter(thresholds[f1[:-1].argmax()], -np.inf))


def point_f1(alarms: Bool[np.ndarray, " time"], labels: Bool[np.ndarray, " time"]) -> tuple[float, float, float]:
    """Precision, recall and F1 over points; 0 where there is no alarm."""
    hits = int((alarms & labels).sum())
    precision, recall = hits / max(int(alarms.sum()), 1), hits / max(int(labels.sum()), 1)
    return precision, recall, 2 * hits / max(int(alarms.sum()) + int(labels.sum()), 1)


def point_adjust(alarms: Bool[np.ndarray, " time"], labels: Bool[np.ndarray, " time"]) -> Bool[np.ndarray, " time"]:
    """Alarms after point adjustment: every point of an anomalous segment in which there is an alarm raises one."""
    segments = np.cumsum(np.diff(labels.astype(np.int8), prepend=0) == 1) * labels
    found = np.unique(segments[alarms & labels])
    return alarms | (labels & np.isin(segments, found))


def window_starts(points: int, *, window: int, stride: int) -> np.ndarray:
    """Starts of windows, `stride` apart, the last one at the very end, so that every point is in one.

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
    """Score of every point: the mean over the windows that contain it."""
    total, count = np.zeros(points + 1), np.zeros(points + 1)
    for array, values in ((total, scores), (count, np.ones(len(scores)))):
        np.add.at(array, starts, values)
        np.subtract.at(array, starts + window, values)
    return (np.cumsum(total) / np.cumsum(count).clip(1))[:-1]


def residual_scores(series: PointAnomalySeries) -> PointScores:
    """Baseline: how far every point is from the one before."""
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
    """Scores by features of windows: how far they are from those of windows of the training half without anomaly.

    Window scores are mean distances to the nearest of at most `reference` windows, evenly spread over the training half,
    in standardised features. The training half is in BLOCKS of time, and its windows are measured by those of other
    blocks alone: by itself or its neighbours a window would look more normal than any test window can.

    Args:
        window, stride: points a window, and between the starts of two.
        local: scores to add, both in units of their 99th percentile over the training half, since features do not say
            which point of a window is at fault. On the training halves of the 12 KPI series an untrained small encoder has
            a mean average precision of 0.31, residuals have 0.28, their sum 0.39.
        options: those of `Encoder.embed`.

    Raises:
        InputError: a half is shorter than a window, or too few training windows are free of anomalies.
    """
    starts = [window_starts(len(half.values), window=window, stride=stride) for half in (series.train, series.test)]
    train, test = (
        encoder.embed(np.lib.stride_tricks.sliding_window_view(half.values, window)[places], **options)
        for half, places in zip((series.train, series.test), starts, strict=True)
    )
    clean = np.flatnonzero(~np.lib.stride_tricks.sliding_window_view(series.train.labels, window)[starts[0]].any(1))
    if not len(clean):
        raise InputError(f"series {series.name} has no training window without anomaly; choose shorter windows")
    kept = clean[np.unique(np.linspace(0, len(clean) - 1, min(reference, len(clean))).astype(int))]
    mean, std = train[kept].mean(0), train[kept].std(0)
    scale = 1 / np.where(std > 1e-6 * np.abs(mean).clip(1e-6), std, 1)
    train, test = (train - mean) * scale, (test - mean) * scale
    window_scores = (
        _score_blocks(train, starts[0], kept, window=window, neighbours=neighbours, name=series.name),
        _distances(test, train[kept], neighbours),
    )
    halves = (series.train, series.test)
    scores = PointScores(
        *(
            window_to_point_scores(one, places, window=window, points=len(half.values))
            for one, places, half in zip(window_scores, starts, halves, strict=True)
        )
    )
    return add_scores(scores, local(series)) if local else scores


def _score_blocks(
    features: np.ndarray, starts: np.ndarray, kept: np.ndarray, *, window: int, neighbours: int, name: str
) -> Float[np.ndarray, " windows"]:
    """Scores of training windows, each block of time by reference windows that share no point with it."""
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
    """The sum of two scores, each in units of its 99th percentile over the training half."""
    units = [max(float(np.quantile(scores.train, 0.99)), np.finfo(np.float32).tiny) for scores in (one, other)]
    return PointScores(*(a / units[0] + b / units[1] for a, b in zip(one, other, strict=True)))


def zscore_scores(series: PointAnomalySeries, *, window: int = 128) -> PointScores:
    """Baseline: deviation of every point from the mean of the `window` points before it, in their standard deviations."""
    floor = 1e-3 * float(series.train.values.std(dtype=np.float64)) or 1.0
    return PointScores(*(_moving_zscores(half, window, floor) for half in (series.train, series.test)))


def _moving_zscores(half: Record, window: int, floor: float) -> np.ndarray:
    """The standard deviation is at least `floor`; the first points have those before them, the very first scores 0."""
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
