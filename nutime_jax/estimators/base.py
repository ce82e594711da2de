"""What all estimators have in common: how they read X, how they embed it, and what a pickle of them holds."""

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from nutime_jax.data.inputs import read_series
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.estimators.inputs import check_choice, check_count, host_encoder, open_encoder
from nutime_jax.models.pooling import POOLINGS


class SeriesEstimator(BaseEstimator):
    """A scikit-learn estimator over series and the features of an encoder.

    Its parameters are `encoder`, `layer`, `pooling`, `channels`, `batch_size`, and others.

    encoder_: the encoder, its weights as NumPy arrays. n_channels_in_: channels of a case. n_features_in_ and, of a
    frame, feature_names_in_: columns of the table that X was, if it was one.

    _last: the attribute that `fit` sets last; without it nothing is fitted.
    """

    _last: str

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, self._last)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: host_encoder(value) if isinstance(value, Encoder) else value for name, value in state.items()}

    def _check_parameters(self) -> None:
        """Refuses what can be refused before anything is read."""
        check_count("batch_size", self.batch_size, least=1)
        if self.pooling is not None:
            check_choice("pooling", self.pooling, POOLINGS)
        check_choice("channels", self.channels, ("mean", "concat"))
        if self.layer is not None:
            check_count("layer", self.layer, least=0)

    def _begin(self, X: Any) -> list[np.ndarray]:
        """Forgets an earlier fit, and reads the cases (channels, time) of this one."""
        for name in [name for name in vars(self) if name == self._last or (name.endswith("_") and not name.startswith("_"))]:
            delattr(self, name)
        self._check_parameters()
        series, _, _, num_columns = read_series(X)
        if num_columns is not None:
            validate_data(self, X, skip_check_array=True, reset=True)
        self.n_channels_in_ = len(series[0])
        return series

    def _read(self, X: Any) -> list[np.ndarray]:
        """The cases (channels, time) of X, once fitted.

        A table keeps the columns of the table that was fitted, as everywhere in scikit-learn; series of other lengths come
        as a collection.
        """
        check_is_fitted(self)
        series, _, _, num_columns = read_series(X)
        fitted = getattr(self, "n_features_in_", None)
        if num_columns is not None and fitted is not None:
            if num_columns != fitted:
                raise InputError(
                    f"X has {num_columns} features, but {type(self).__name__} is expecting {fitted} features as input: a table "
                    "keeps its columns; pass series of another length as an array (cases, 1, time) or as a list of arrays"
                )
            validate_data(self, X, skip_check_array=True, reset=False)
        if len(series[0]) != self.n_channels_in_:
            raise InputError(f"cases of X have {len(series[0])} channels, but were fitted with {self.n_channels_in_}; pass as many")
        return series

    def _open(self) -> None:
        """Opens the encoder."""
        self.encoder_ = open_encoder(self.encoder)
        depth = self.encoder_.config.model.depth
        if self.layer is not None and self.layer > depth:
            raise InputError(f"layer {self.layer} does not exist; choose 0 to {depth}, or None for the normalised last layer")

    def _embed(self, cases: list[np.ndarray]) -> np.ndarray:
        """Features, float32 (cases, features).

        Batches are filled up with copies of the last case: all have one shape, so that one program is compiled, and the
        features of a case are the same to the bit whichever cases it comes with.
        """
        whole = self.batch_size // math.gcd(self.batch_size, len(cases[0]))
        filled = cases + cases[-1:] * (-len(cases) % whole)
        options = {"layer": self.layer, "pooling": self.pooling, "channels": self.channels}
        return self.encoder_.embed(filled, batch_size=self.batch_size, **options)[: len(cases)]
