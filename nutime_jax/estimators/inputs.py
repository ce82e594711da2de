"""What users give to an estimator, brought into one form or refused in a sentence: series, labels, options, the encoder."""

import dataclasses
import numbers
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from nutime_jax.data.series import clean_series
from nutime_jax.data.tables import IDS, TIMES, Table, read_table
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder


class Collection(NamedTuple):
    """Series as they were given.

    series: arrays (time,) or (channels, time), of any real dtype.
    points: columns of a table, which is what scikit-learn calls features; None where X is not a table but a collection.
    """

    series: list[np.ndarray]
    points: int | None


def read_collection(X: Any) -> Collection:
    """Series of a table (cases, time), or of a collection: an array (cases, channels, time), a list of arrays, ragged lists.

    A list of NumPy arrays is a collection even if all have one length; lists of numbers of one length are a table. Of pandas
    frames (see `data.tables`), those with a row a series and numbers alone are tables, other ones collections.

    Raises:
        InputError, TypeError: X is neither, or does not hold real numbers.
    """
    if sparse.issparse(X):
        raise InputError("X is sparse, and sparse series are not supported; give X.toarray()")
    if np.ma.isMaskedArray(X):
        raise InputError("X is a masked array; mark missing values as NaN with X.filled(numpy.nan)")
    if isinstance(X, (str, bytes, dict, set)) or not (hasattr(X, "__len__") or hasattr(X, "__array__")):
        raise TypeError(f"X is of type {type(X).__name__}; give an array (cases, time) or (cases, channels, time), or a list of arrays")
    if isinstance(X, (list, tuple)):
        if any(getattr(one, "ndim", 0) for one in X):
            return Collection([_numeric(one, f"case {i} of X") for i, one in enumerate(X)], None)
        try:
            X = np.array(X)
        except ValueError:  # not of one length
            return Collection([_numeric(one, f"case {i} of X") for i, one in enumerate(X)], None)
    elif hasattr(X, "iloc") and np.ndim(X) == 2:
        return _read_frame(X)
    else:
        X = np.asarray(X)
    if X.dtype == object and X.ndim == 1 and len(X) and not any(one is None or np.isscalar(one) for one in X):
        return Collection([_numeric(one, f"case {i} of X") for i, one in enumerate(X)], None)
    X = _numeric(X, "X")
    if X.ndim not in (2, 3):
        raise InputError(
            f"X has shape {X.shape}; give an array (cases, time) or (cases, channels, time) "
            "(Reshape your data: one series alone is X.reshape(1, -1))"
        )
    if not X.size:
        short = f"0 feature(s) (shape={X.shape}) while a minimum of 1 is required" if len(X) else "0 series in it"
        raise InputError(f"X has {short}; give one series or more, of one point or more")
    return Collection(list(X), X.shape[1] if X.ndim == 2 else None)


def clean_cases(collection: Collection) -> list[np.ndarray]:
    """Cases (channels, time) without missing values; see `data.series.clean_series`.

    Raises:
        InputError: there is none, one cannot be cleaned, or they have different channels.
    """
    if not collection.series:
        raise InputError("X holds no series; give one or more")
    cases = [clean_series(one, name=f"case {i} of X") for i, one in enumerate(collection.series)]
    counts = sorted({len(case) for case in cases})
    if len(counts) > 1:
        raise InputError(f"cases of X have {counts} channels; give every case the same number")
    return cases


def read_labels(y: Any, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes, sorted, in the type of the labels, and the number of every case's class.

    Raises:
        InputError: not one label a case, one that is missing or a real number, or fewer than two classes.
    """
    if y is None:
        raise InputError("the estimator requires y to be passed, but the target y is None; give one label a case")
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    if y.ndim != 1:
        raise InputError(f"y has shape {y.shape}; give one label a case, (cases,)")
    if len(y) != cases:
        raise InputError(f"X has {cases} cases and y has {len(y)} labels; give one label a case")
    _check_label_values(y)
    try:
        classes, codes = np.unique(y, return_inverse=True)
    except TypeError as error:
        raise InputError(f"labels in y are of kinds that cannot be sorted ({error}); give all in one type") from error
    if len(classes) < 2:
        raise InputError(f"y has one class, {classes[0]!r}; a classifier needs cases of two classes or more")
    return classes, codes


def _check_label_values(y: np.ndarray) -> None:
    missing = [_is_missing(one) for one in y.tolist()]
    if any(missing):
        raise InputError(f"label {missing.index(True)} of y is missing (Input y contains NaN); leave the case out, or label it")
    plain = np.array(y.tolist()) if y.dtype == object and not isinstance(y[0], (tuple, list)) else y
    if plain.dtype.kind == "c":
        raise InputError("Complex data not supported: y holds complex numbers; give text, whole numbers or booleans")
    if plain.dtype.kind == "f" and not (np.isfinite(plain) & (plain == np.rint(plain))).all():
        raise InputError("y holds real numbers (Unknown label type: continuous); give classes: text, whole numbers or booleans")


def _is_missing(label: Any) -> bool:
    """Whether a label is None, or differs from itself as NaN does, or cannot tell whether it does, as pandas.NA."""
    try:
        return label is None or bool(label != label)
    except TypeError:
        return True


def _numeric(x: Any, name: str) -> np.ndarray:
    """Real numbers; of Python objects, those that they stand for."""
    try:
        x = np.asarray(x)
        if x.dtype == object:
            x = x.astype(np.float64)
    except TypeError as error:
        raise TypeError(f"{name} holds objects that are no numbers ({error}); convert them") from error
    except ValueError as error:
        raise InputError(f"{name} is no array of numbers ({error}); give numbers, rows of one length") from error
    if x.dtype.kind == "c":
        raise InputError(f"Complex data not supported: {name} holds {x.dtype} values; give their real parts, imaginary ones as a channel")
    if x.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {x.dtype} values; convert it to real numbers")
    return x


def _read_frame(frame: Any) -> Collection:
    """Series of a pandas frame, wide or long; only a wide one all of whose columns are points is a table."""
    indices = [str(name).strip().lower() for name in frame.index.names]
    if any(name in IDS + TIMES for name in indices):
        frame = frame.reset_index()
    elif len(indices) > 1:
        raise InputError(f"X is a frame with an index of levels {frame.index.names}; name them id and time, or give a row a series")
    if any(dtype.kind == "c" for dtype in frame.dtypes):
        raise InputError("Complex data not supported: X is a frame of complex numbers; give their real parts")
    if not frame.shape[1]:
        return Collection([], None)
    series = list(read_table(Table("X", [str(name) for name in frame.columns], frame))[0])
    whole = len(series) == len(frame) and all(one.shape == (frame.shape[1],) for one in series)
    return Collection(series, frame.shape[1] if whole else None)


def check_count(name: str, value: Any, *, least: int) -> None:
    """Refuses what is no whole number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} is {value!r}; give a whole number of {least} or more")


def check_share(name: str, value: Any) -> None:
    """Refuses what is no number between 0 and 1, both excluded."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < 1:
        raise InputError(f"{name} is {value!r}; give a number between 0 and 1, both excluded")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuses what is not one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} {value!r} is unknown; choose one of {', '.join(choices)}")


def draw_seed(random_state: Any) -> int:
    """A seed for what is not drawn by NumPy: the same for the same `random_state`, except None.

    Raises:
        InputError: no seed, generator or None.
    """
    try:
        return int(check_random_state(random_state).randint(2**31 - 2**16))
    except ValueError as error:
        raise InputError(f"random_state is {random_state!r}; give a whole number, a numpy.random.RandomState, or None") from error


def open_encoder(encoder: Any) -> Encoder:
    """The encoder that a parameter names, its weights as NumPy arrays.

    Raises:
        InputError: it is no name, path or `Encoder`, or cannot be loaded.
    """
    if isinstance(encoder, Encoder):
        return host_encoder(encoder)
    if not isinstance(encoder, (str, os.PathLike)):
        raise InputError(f"encoder is of type {type(encoder).__name__}; give the name of a shipped encoder, a path, or an Encoder")
    return host_encoder(load_encoder(encoder))


def host_encoder(encoder: Encoder) -> Encoder:
    """The encoder with its weights as NumPy arrays, which can be pickled and belong to no device."""
    return dataclasses.replace(encoder, variables=jax.tree.map(np.asarray, encoder.variables))
