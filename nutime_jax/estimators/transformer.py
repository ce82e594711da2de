"""Frozen features as a step of a scikit-learn pipeline."""

import os
from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from nutime_jax.encoder import Encoder
from nutime_jax.estimators.base import SeriesEstimator


class NuTimeTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SeriesEstimator):
    """Features of a frozen encoder; nothing is trained.

    Args:
        encoder: name of a shipped encoder, path of a workdir or checkpoint, or an `Encoder`.
        layer, pooling: see `Encoder.embed`.
        channels: "concat", features of the channels side by side, or their "mean".
        batch_size: channels embedded at once; the last batch is filled up.
    """

    _last = "_n_features_out"

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
        """Opens the encoder and notes what cases are like; `y` is ignored."""
        cases = self._begin(X)
        self._open()
        self._n_features_out = self._embed(cases[:1]).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features, float32 (cases, features)."""
        return self._embed(self._read(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
