"""Transformer of series to frozen features, for scikit-learn pipelines."""

import os
from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from nutime_jax.encoder import Encoder
from nutime_jax.estimators.base import SeriesEstimator


class NuTimeTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SeriesEstimator):
    """Transformer of series to the features of a frozen encoder; nothing is trained.

    Args:
        encoder: name of a shipped encoder, path of a workdir or checkpoint, or an `Encoder`.
        layer, pooling: see `Encoder.embed`.
        channels: "concat" of the features of the channels, or their "mean".
        batch_size: channels per batch; the last batch is padded.
    """

    _fitted_attribute = "_n_features_out"

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        layer: int | None = None,
        pooling: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
    ):
        self.encoder = encoder
        self.layer = layer
        self.pooling = pooling
        self.channels = channels
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> Self:
        """Load the encoder, and set the number of channels and features; `y` is ignored."""
        cases = self._prepare_fit(X)
        self._load_encoder(cases)
        self._n_features_out = self._embed(cases[:1]).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return features, float32 (cases, features)."""
        return self._embed(self._validate_series(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
