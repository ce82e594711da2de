"""The estimators under the base classes of aeon, for its pipelines and benchmarks; each hands over to the one of scikit-learn."""

import os
from typing import Any, ClassVar

import numpy as np
from aeon.anomaly_detection.collection.base import BaseCollectionAnomalyDetector
from aeon.classification import BaseClassifier
from aeon.clustering import BaseClusterer
from aeon.transformations.collection import BaseCollectionTransformer

from nutime_jax.encoder import Encoder
from nutime_jax.estimators.classifier import NuTimeClassifier
from nutime_jax.estimators.clusterer import NuTimeClusterer
from nutime_jax.estimators.detector import NuTimeAnomalyDetector
from nutime_jax.estimators.transformer import NuTimeTransformer
from nutime_jax.evaluation.protocols.anomaly import QUANTILE
from nutime_jax.evaluation.protocols.clustering import STARTS

TAGS = {
    "X_inner_type": ["np-list", "numpy3D"],
    "algorithm_type": "deeplearning",
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
}


class AeonNuTimeTransformer(BaseCollectionTransformer):
    """See `NuTimeTransformer`, which `estimator_` is."""

    _tags: ClassVar = {**TAGS, "output_data_type": "Tabular", "removes_unequal_length": True, "removes_missing_values": True}

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        layer: int | None = None,
        readout: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
    ):
        self.encoder = encoder
        self.layer = layer
        self.readout = readout
        self.channels = channels
        self.batch_size = batch_size
        super().__init__()

    def _fit(self, X: Any, y: Any = None) -> "AeonNuTimeTransformer":
        self.estimator_ = NuTimeTransformer(**self.get_params(deep=False)).fit(X)
        return self

    def _transform(self, X: Any, y: Any = None) -> np.ndarray:
        return self.estimator_.transform(X)


class AeonNuTimeClassifier(BaseClassifier):
    """See `NuTimeClassifier`, which `estimator_` is; probes without probabilities give 1 to the class that they predict."""

    _tags: ClassVar = TAGS

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        strategy: str = "probe",
        probe: str = "logistic",
        layer: int | None = None,
        readout: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
        epochs: int = 60,
        patience: int = 20,
        rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3),
        members: int = 1,
        validation_fraction: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.encoder = encoder
        self.strategy = strategy
        self.probe = probe
        self.layer = layer
        self.readout = readout
        self.channels = channels
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.rates = rates
        self.members = members
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        super().__init__()

    def _fit(self, X: Any, y: np.ndarray) -> "AeonNuTimeClassifier":
        self.estimator_ = NuTimeClassifier(**self.get_params(deep=False)).fit(X, y)
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return self.estimator_.predict(X)

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.estimator_.predict_proba(X) if hasattr(self.estimator_, "predict_proba") else super()._predict_proba(X)


class AeonNuTimeClusterer(BaseClusterer):
    """See `NuTimeClusterer`, which `estimator_` is."""

    _tags: ClassVar = TAGS

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        n_clusters: int = 8,
        n_init: int = STARTS,
        layer: int | None = None,
        readout: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.encoder = encoder
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.layer = layer
        self.readout = readout
        self.channels = channels
        self.batch_size = batch_size
        self.random_state = random_state
        super().__init__()

    def _fit(self, X: Any, y: Any = None) -> "AeonNuTimeClusterer":
        self.estimator_ = NuTimeClusterer(**self.get_params(deep=False)).fit(X)
        self.labels_ = self.estimator_.labels_
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return self.estimator_.predict(X)

    def _predict_proba(self, X: Any) -> np.ndarray:
        return np.eye(self.n_clusters)[self._predict(X)]  # a column a cluster, also where a cluster has no case


class AeonNuTimeAnomalyDetector(BaseCollectionAnomalyDetector):
    """See `NuTimeAnomalyDetector`, which `estimator_` is; as elsewhere in aeon, 1 is an anomaly and 0 is none.

    Where labels are given, it is fitted on the cases that they call normal.
    """

    _tags: ClassVar = {
        **TAGS,
        "anomaly_output_type": "binary",
        "fit_is_empty": False,
        "learning_type:unsupervised": True,
        "learning_type:semi_supervised": True,
    }

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        detector: str = "knn",
        quantile: float = QUANTILE,
        layer: int | None = None,
        readout: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
    ):
        self.encoder = encoder
        self.detector = detector
        self.quantile = quantile
        self.layer = layer
        self.readout = readout
        self.channels = channels
        self.batch_size = batch_size
        super().__init__()

    def _fit(self, X: Any, y: np.ndarray | None = None) -> "AeonNuTimeAnomalyDetector":
        normal = list(X) if y is None else [case for case, anomalous in zip(X, y, strict=True) if not anomalous]
        self.estimator_ = NuTimeAnomalyDetector(**self.get_params(deep=False)).fit(normal)
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return (self.estimator_.predict(X) < 0).astype(np.int64)
