"""What users give to an estimator, brought into one form or refused in a sentence: series, labels, options, the encoder."""

import dataclasses
import numbers
import os
from typing import Any

import jax
import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from nutime_jax.data.series import is_missing
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder


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
    missing = [is_missing(label) for label in y.tolist()]
    if any(missing):
        raise InputError(f"label {missing.index(True)} of y is missing (Input y contains NaN); leave the case out, or label it")
    plain = np.array(y.tolist()) if y.dtype == object and not isinstance(y[0], (tuple, list)) else y
    if plain.dtype.kind == "c":
        raise InputError("Complex data not supported: y holds complex numbers; give text, whole numbers or booleans")
    if plain.dtype.kind == "f" and not (np.isfinite(plain) & (plain == np.rint(plain))).all():
        raise InputError("y holds real numbers (Unknown label type: continuous); give classes: text, whole numbers or booleans")


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
