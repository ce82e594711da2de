"""Anomalous series: those whose frozen features are far from the ones that are known."""

import os
from typing import Any, Self

import numpy as np
from sklearn.base import OutlierMixin
from threadpoolctl import threadpool_limits

from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.estimators.base import SeriesEstimator
from nutime_jax.estimators.inputs import check_choice, check_share
from nutime_jax.evaluation.protocols.anomaly import DETECTORS, QUANTILE, score_cases, score_held_out


class NuTimeAnomalyDetector(OutlierMixin, SeriesEstimator):
    """Finds series unlike those that it was fitted on, which are taken for normal; see `evaluation.anomaly`.

    Args:
        encoder, layer, pooling, channels, batch_size: see `NuTimeTransformer`.
        detector: "knn", "mahalanobis" or "lof".
        quantile: share of the cases fitted on that raise no alarm, each scored by a detector that did not see it. Those it
            has seen score lower: of them fewer raise one.

    reference_features_: features of the cases fitted on. offset_: the score below which a case is an anomaly. Nothing is drawn at random.
    """

    _last = "offset_"

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        detector: str = "knn",
        quantile: float = QUANTILE,
        layer: int | None = None,
        pooling: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
    ):
        self.encoder = encoder
        self.detector = detector
        self.quantile = quantile
        self.layer = layer
        self.pooling = pooling
        self.channels = channels
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learns what is normal; `y` is ignored."""
        cases = self._begin(X)
        if len(cases) < 2:
            raise InputError("X has 1 sample; give two cases or more to learn what is normal")
        self._open()
        self.reference_features_ = self._embed(cases).astype(np.float64)
        with threadpool_limits(1):  # small products
            self.offset_ = -float(np.quantile(score_held_out(self.reference_features_, detector=self.detector), self.quantile))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """How normal each case is, float64 (cases,): the negative score of the detector."""
        features = self._embed(self._read(X))
        with threadpool_limits(1):
            return -score_cases(self.reference_features_, features, detector=self.detector)

    def decision_function(self, X: Any) -> np.ndarray:
        """As `score_samples`, moved so that anomalies are below 0."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for an anomaly, 1 for a normal case."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("detector", self.detector, tuple(DETECTORS))
        check_share("quantile", self.quantile)
