"""What users hand over as series: arrays, lists of arrays, pandas frames, and iterators of cases that are drawn one by one."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nutime_jax.data.series import clean_block, clean_series
from nutime_jax.data.tables import read_frame
from nutime_jax.errors import InputError

BLOCK = 1024
"""Cases of an array that are cleaned at once."""
FORMS = "give an array (cases, [channels,] time), a list of arrays ([channels,] time), a pandas frame or an iterator of cases"


def clean_cases(X: Any) -> list[np.ndarray]:
    """The cases of anything but an iterator, finite, (channels, time) each; see `clean_series`. The input is not touched.

    Args:
        X: an array (cases, time) or (cases, channels, time), a sequence of arrays (time,) or (channels, time) of any
            lengths, or a pandas frame, wide or long (`tables.read_table`; columns of labels and ids are left out).

    Raises:
        InputError: X is nothing of the kind, empty, has a case that is no series, or cases of unequal channels.
    """
    raw = _raw_cases(X)
    if isinstance(raw, np.ndarray):
        blocks = raw if raw.ndim == 3 else raw[:, None]
        cases = [case for i in range(0, len(raw), BLOCK) for case in clean_block(blocks[i : i + BLOCK], first=i)]
    else:
        cases = [clean_case(one, i) for i, one in enumerate(raw)]
    if not cases:
        raise InputError("X holds no series; give it one or more")
    counts = sorted({len(case) for case in cases})
    if len(counts) > 1:
        raise InputError(f"cases have {counts} channels; every case needs the same number")
    return cases


def drawn_cases(X: Iterator[Any]) -> Iterator[np.ndarray]:
    """The cases of an iterator, cleaned as they are drawn.

    Raises:
        InputError: when a case is drawn that is no series, or has other channels than the first.
    """
    count = None
    for i, one in enumerate(X):
        case = clean_case(one, i)
        count = len(case) if count is None else count
        if len(case) != count:
            raise InputError(f"case {i} has {len(case)} channels, case 0 has {count}; every case needs the same number")
        yield case


def clean_case(one: Any, number: int) -> np.ndarray:
    """One case, cleaned, (channels, time).

    Raises:
        InputError: it is no series; the error names it by its number.
    """
    name = f"case {number}"
    if one is None or isinstance(one, (str, bytes, dict, set, frozenset, Iterator)) or _is_frame(one):
        raise InputError(f"{name} is {_kind(one)}; give it as an array (time,) or (channels, time)")
    return clean_series(as_numbers(one, name=name), name=name)


def as_numbers(x: Any, *, name: str) -> np.ndarray:
    """An array of what converts to one; what is masked, or missing in pandas, becomes NaN.

    Raises:
        InputError: it does not convert.
    """
    if isinstance(x, np.ma.MaskedArray) and x.dtype.kind in "biuf":
        return x.astype(np.float64).filled(np.nan)
    if _is_pandas(x, "Series", "Index") and x.dtype.kind in "biuf" and not isinstance(x.dtype, np.dtype):
        return x.to_numpy(np.float64, na_value=np.nan)
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} does not convert to an array ({_line(error)}); {FORMS}") from error


def _raw_cases(X: Any) -> Sequence[Any]:
    if _is_frame(X):
        return read_frame(X, name="the frame").series
    if isinstance(X, Sequence) and not isinstance(X, (str, bytes)):
        if X and all(np.isscalar(one) for one in X):
            raise InputError(f"X is one series of {len(X)} points; give several as a list of arrays, or this one as [X]")
        return X
    if not hasattr(X, "__array__"):
        raise InputError(f"X is {_kind(X)}; {FORMS}")
    array = as_numbers(X, name="X")
    if array.ndim == 1 and array.dtype == object:  # arrays of unequal length
        return list(array)
    if array.ndim not in (2, 3):
        remedy = "give one series as [X]" if array.ndim == 1 else "give (cases, time) or (cases, channels, time)"
        raise InputError(f"X has shape {array.shape}; {remedy}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"X holds {array.dtype} values; convert it to real numbers")
    return array


def _is_frame(x: Any) -> bool:
    return _is_pandas(x, "DataFrame")


def _is_pandas(x: Any, *names: str) -> bool:
    """Whether x is of a class of pandas, which is not imported for it: who has such an object has imported pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(x, tuple(getattr(pandas, name) for name in names))


def _kind(x: Any) -> str:
    return "None" if x is None else f"of type {type(x).__name__}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
