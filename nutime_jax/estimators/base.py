"""Base class of all estimators: reading X, features, pickles; checks of parameters."""

import dataclasses
import math
import numbers
import os
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nutime_jax.data.inputs import read_series
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder
from nutime_jax.models.pooling import POOLINGS


class SeriesEstimator(BaseEstimator):
    """Base class of scikit-learn estimators on the features of an encoder.

    Parameters are `encoder`, `layer`, `pooling`, `channels`, `batch_size`, and those of the subclass.

    Attributes:
        encoder_: the encoder, with its weights as NumPy arrays.
        n_channels_in_: channels of a case.
        n_features_in_, feature_names_in_: number and names of the columns, where X is a table.
        _fitted_attribute: name of the attribute that `fit` sets last.
    """

    _fitted_attribute: str

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, self._fitted_attribute)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: host_encoder(value) if isinstance(value, Encoder) else value for name, value in state.items()}

    def _check_parameters(self) -> None:
        """Raise InputError for parameters that are not accepted; reads no data."""
        check_count("batch_size", self.batch_size, minimum=1)
        if self.pooling is not None:
            check_choice("pooling", self.pooling, POOLINGS)
        check_choice("channels", self.channels, ("mean", "concat"))
        if self.layer is not None:
            check_count("layer", self.layer, minimum=0)

    def _prepare_fit(self, X: Any) -> list[np.ndarray]:
        """Remove the attributes of an earlier fit, and return the cases of X, (channels, time) each."""
        for name in [name for name in vars(self) if name == self._fitted_attribute or (name.endswith("_") and not name.startswith("_"))]:
            delattr(self, name)
        self._check_parameters()
        series, _, _, num_columns = read_series(X)
        if num_columns is not None:
            validate_data(self, X, skip_check_array=True, reset=True)
        self.n_channels_in_ = len(series[0])
        return series

    def _validate_series(self, X: Any) -> list[np.ndarray]:
        """Return the cases of X, (channels, time) each, for a fitted estimator.

        A table needs the columns of the table of `fit`, as scikit-learn requires; other lengths come as a collection.
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

    def _load_encoder(self, cases: list[np.ndarray]) -> None:
        """Set `encoder_`, with its normalisation fitted on the training cases."""
        self.encoder_ = open_encoder(self.encoder).fit_normalisation(cases)
        depth = self.encoder_.config.model.depth
        if self.layer is not None and self.layer > depth:
            raise InputError(f"layer {self.layer} does not exist; choose 0 to {depth}, or None for the normalised last layer")

    def _embed(self, cases: list[np.ndarray]) -> np.ndarray:
        """Return features, float32 (cases, features).

        Batches are padded with copies of the last case. All have one shape, so one executable is compiled, and the features
        of a case do not depend on the other cases, bit for bit.
        """
        cases_per_batch = self.batch_size // math.gcd(self.batch_size, len(cases[0]))
        padded = cases + cases[-1:] * (-len(cases) % cases_per_batch)
        options = {"layer": self.layer, "pooling": self.pooling, "channels": self.channels}
        return self.encoder_.embed(padded, batch_size=self.batch_size, **options)[: len(cases)]


def check_count(name: str, value: Any, *, minimum: int) -> None:
    """Raise InputError unless a parameter is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise InputError(f"{name} is {value!r}; pass a whole number of {minimum} or more")


def check_fraction(name: str, value: Any) -> None:
    """Raise InputError unless a parameter is a number between 0 and 1, both excluded."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < 1:
        raise InputError(f"{name} is {value!r}; pass a number between 0 and 1, both excluded")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise InputError unless a parameter is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} {value!r} is unknown; choose one of {', '.join(choices)}")


def sample_seed(random_state: Any) -> int:
    """Return an integer seed, the same for the same `random_state`, except None.

    Raises:
        InputError: `random_state` is not a seed, a generator or None.
    """
    try:
        return int(check_random_state(random_state).randint(2**31 - 2**16))
    except ValueError as error:
        raise InputError(f"random_state is {random_state!r}; pass a whole number, a numpy.random.RandomState, or None") from error


def open_encoder(encoder: Any) -> Encoder:
    """Return the encoder that a parameter names, with its weights as NumPy arrays.

    Raises:
        InputError: the parameter is not a name, path or `Encoder`, or the encoder cannot be loaded.
    """
    if isinstance(encoder, Encoder):
        return host_encoder(encoder)
    if not isinstance(encoder, (str, os.PathLike)):
        raise InputError(f"encoder is of type {type(encoder).__name__}; pass the name of a shipped encoder, a path, or an Encoder")
    return host_encoder(load_encoder(encoder))


def host_encoder(encoder: Encoder) -> Encoder:
    """Return the encoder with its weights as NumPy arrays, which can be pickled and belong to no device."""
    if all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(encoder.variables)):
        return encoder
    return dataclasses.replace(encoder, variables=jax.tree.map(np.asarray, encoder.variables))
