"""Clusterer of series: k-means on standardised frozen features."""

import os
from typing import Any, Self

import numpy as np
from sklearn.base import ClusterMixin

from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.estimators.base import SeriesEstimator, check_count, sample_seed
from nutime_jax.evaluation.protocols.clustering import STARTS, fit_clusters


class NuTimeClusterer(ClusterMixin, SeriesEstimator):
    """Clusterer of series of any length and scale; see `evaluation.protocols.clustering`.

    Args:
        encoder, layer, pooling, channels, batch_size: see `NuTimeTransformer`.
        n_clusters: number of clusters.
        n_init: starts of k-means; the start with the smallest inertia is used.
        random_state: seed of the starts.

    Attributes:
        labels_: cluster of each training case.
        inertia_: objective of k-means.
        pipeline_: scaler and k-means.
    """

    _fitted_attribute = "labels_"

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        n_clusters: int = 8,
        n_init: int = STARTS,
        layer: int | None = None,
        pooling: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.encoder = encoder
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.layer = layer
        self.pooling = pooling
        self.channels = channels
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find clusters; `y` is ignored."""
        cases = self._prepare_fit(X)
        if len(cases) < self.n_clusters:
            raise InputError(f"n_clusters is {self.n_clusters} and X has {len(cases)} cases; pass more cases, or choose fewer clusters")
        self._load_encoder(cases)
        seed = sample_seed(self.random_state)
        self.pipeline_ = fit_clusters(self._embed(cases), self.n_clusters, starts=self.n_init, seed=seed)
        self.inertia_, self.labels_ = float(self.pipeline_[-1].inertia_), self.pipeline_[-1].labels_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the nearest cluster of each case, (cases,)."""
        features = self._embed(self._validate_series(X))
        return self.pipeline_.predict(features.astype(np.float64))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("n_clusters", "n_init"):
            check_count(name, getattr(self, name), minimum=1)
