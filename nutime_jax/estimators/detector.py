"""Detector of anomalous series: those whose frozen features are far from the reference features."""

import os
from typing import Any, Self

import numpy as np
from sklearn.base import OutlierMixin
from threadpoolctl import threadpool_limits

from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.estimators.base import SeriesEstimator, check_choice, check_fraction
from nutime_jax.evaluation.protocols.anomaly import DETECTORS, QUANTILE, score_cases, score_held_out


class NuTimeAnomalyDetector(OutlierMixin, SeriesEstimator):
    """Detector of series unlike the training cases, which it takes as normal; see `evaluation.protocols.anomaly`.

    Args:
        encoder, layer, pooling, channels, batch_size: see `NuTimeTransformer`.
        detector: "knn", "mahalanobis" or "lof".
        quantile: fraction of the training cases without an alarm, each scored by a detector that was fitted without it.
            The fitted detector raises fewer alarms on training cases.

    Attributes:
        reference_features_: features of the training cases, float64 (cases, features).
        offset_: score below which a case is an anomaly.

    The detector uses no random numbers.
    """

    _fitted_attribute = "offset_"

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
        """Fit on normal cases; `y` is ignored."""
        cases = self._prepare_fit(X)
        if len(cases) < 2:
            raise InputError("X has 1 sample; pass two cases or more to fit a detector")
        self._load_encoder(cases)
        self.reference_features_ = self._embed(cases).astype(np.float64)
        with threadpool_limits(1):  # small matrix multiplications
            self.offset_ = -float(np.quantile(score_held_out(self.reference_features_, detector=self.detector), self.quantile))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the negative score of the detector, float64 (cases,); lower is more anomalous."""
        features = self._embed(self._validate_series(X))
        with threadpool_limits(1):
            return -score_cases(self.reference_features_, features, detector=self.detector)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return `score_samples` minus `offset_`, (cases,); anomalies are below 0."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return -1 for an anomaly, 1 for a normal case, (cases,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("detector", self.detector, tuple(DETECTORS))
        check_fraction("quantile", self.quantile)
