"""Long series whose time points are labelled normal or anomalous."""

import itertools
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from nutime_jax.errors import InputError

FIELDS = ("values", "labels", "offsets")


@dataclass(frozen=True)
class Record:
    """Values of one half of a series, and whether each time point is anomalous."""

    values: Float32[np.ndarray, " time"]
    labels: Bool[np.ndarray, " time"]


@dataclass(frozen=True)
class PointAnomalySeries:
    """A series whose first half serves for fitting and whose second half is scored."""

    name: str
    train: Record
    test: Record


def read_point_anomaly_series(path: str | os.PathLike) -> list[PointAnomalySeries]:
    """Reads an .npz file of flat values and labels (1 is anomalous), series i from offsets[i] to offsets[i + 1].

    Its arrays are `train_values`, `train_labels`, `train_offsets`, the same of `test_`, and `names`, if any.

    Raises:
        InputError: the file cannot be read, an array is absent, or they do not fit together.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as .npz ({error}); write it with numpy.savez, without objects") from error
    wanted = [f"{half}_{field}" for half in ("train", "test") for field in FIELDS]
    if missing := [name for name in wanted if name not in arrays]:
        raise InputError(f"{path} has no array {missing[0]}; point_anomaly needs {', '.join(wanted)}")
    train, test = (_split_records(arrays, half, path) for half in ("train", "test"))
    names = arrays.get("names", np.arange(len(train))).astype(str)
    if not len(train) == len(test) == len(names):
        raise InputError(f"{path} has {len(train)} series in train, {len(test)} in test and {len(names)} names; give one of each a series")
    return [PointAnomalySeries(*parts) for parts in zip(names.tolist(), train, test, strict=True)]


def _split_records(arrays: dict[str, np.ndarray], half: str, path: Path) -> list[Record]:
    values, labels, offsets = (arrays[f"{half}_{field}"] for field in FIELDS)
    if values.ndim != 1 or labels.shape != values.shape:
        raise InputError(f"{path}: {half}_values {values.shape} and {half}_labels {labels.shape} should be flat and alike")
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2 or offsets[0] or offsets[-1] != len(values):
        raise InputError(f"{path}: {half}_offsets should be whole numbers that rise from 0 to {len(values)}")
    if (np.diff(offsets) < 1).any():
        raise InputError(f"{path}: {half}_offsets do not rise; every series needs a point or more")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {half}_values holds values that are missing or infinite; fill them first")
    if not np.isin(labels, (0, 1)).all():
        raise InputError(f"{path}: {half}_labels holds other values than 0 (normal) and 1 (anomalous)")
    spans = itertools.pairwise(offsets)
    return [Record(values[a:b].astype(np.float32), labels[a:b].astype(bool)) for a, b in spans]
