"""Point anomaly detection: long series with a label, normal or anomalous, per time point."""

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
class PointAnomalyRecord:
    """Values of one half of a series; labels are True at anomalous time points."""

    values: Float32[np.ndarray, " time"]
    labels: Bool[np.ndarray, " time"]


@dataclass(frozen=True)
class PointAnomalySeries:
    """A series: a train half for reference, and a test half to score."""

    name: str
    train: PointAnomalyRecord
    test: PointAnomalyRecord


def read_point_anomaly_series(path: str | os.PathLike) -> list[PointAnomalySeries]:
    """Read an .npz file of flat values and labels (1 is anomalous); series i spans offsets[i] to offsets[i + 1].

    Its arrays are `train_values`, `train_labels`, `train_offsets`, the same for `test_`, and optionally `names`.

    Raises:
        InputError: the file cannot be read, an array is absent, or shapes do not match.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as .npz ({error}); write it with numpy.savez, without objects") from error
    wanted = [f"{half}_{field}" for half in ("train", "test") for field in FIELDS]
    if missing := [name for name in wanted if name not in arrays]:
        raise InputError(f"{path} has no array {missing[0]}; point anomaly series need {', '.join(wanted)}")
    train, test = (_split_records(arrays, half, path) for half in ("train", "test"))
    names = arrays.get("names", np.arange(len(train))).astype(str)
    if not len(train) == len(test) == len(names):
        raise InputError(f"{path} has {len(train)} series in train, {len(test)} in test and {len(names)} names; store one per series")
    return [PointAnomalySeries(*parts) for parts in zip(names.tolist(), train, test, strict=True)]


def _split_records(arrays: dict[str, np.ndarray], half: str, path: Path) -> list[PointAnomalyRecord]:
    values, labels, offsets = (arrays[f"{half}_{field}"] for field in FIELDS)
    if values.ndim != 1 or labels.shape != values.shape:
        raise InputError(f"{path}: {half}_values {values.shape} and {half}_labels {labels.shape} should be flat, of one length; fix them")
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2 or offsets[0] or offsets[-1] != len(values):
        raise InputError(f"{path}: {half}_offsets should be integers that increase from 0 to {len(values)}; correct them")
    if (np.diff(offsets) < 1).any():
        raise InputError(f"{path}: {half}_offsets do not increase; every series needs one or more time points")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {half}_values holds values that are missing or infinite; fill them first")
    if not np.isin(labels, (0, 1)).all():
        raise InputError(f"{path}: {half}_labels holds other values than 0 (normal) and 1 (anomalous)")
    spans = itertools.pairwise(offsets)
    return [PointAnomalyRecord(values[a:b].astype(np.float32), labels[a:b].astype(bool)) for a, b in spans]
