"""Statistics of datasets, to look at before training. They describe, and choose nothing."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Shaped

from nutime_jax.data.datasets import DatasetFiles
from nutime_jax.data.formats import file_suffix
from nutime_jax.data.series import Cases

WINDOW = 16
"""Time points per window, as in the shipped configurations."""
FLAT = 1e-3
"""Range of a flat window as a fraction of the range of its series, at most."""


@dataclass(frozen=True)
class SummaryStats:
    """Minimum, median and maximum of one number per series."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class SplitStats:
    """Statistics of a split; a series is a channel of a case.

    values: number of values between the first and the last of each case that is not missing.
    shortest, longest: time points of a case, without padding.
    classes: cases per label; None without labels.
    padding: fraction of the values in the file that are missing at either end of a case in all channels.
    missing: fraction of `values` that are missing.
    log_std, log_mean: log10 of standard deviation and |mean|, where these are not 0; a mean below the rounding of float32 is 0.
    constant: number of constant series.
    flat_windows: fraction of windows that are (nearly) constant; None where every series is shorter than a window.
    repeated: cases equal to an earlier case of the split, bit for bit.
    unlabelled: cases without a label, where others have one.
    unequal_steps: series of a long table whose times are not on a regular grid.
    roles: role of each column of a table.
    """

    cases: int
    channels: int
    values: int
    shortest: int
    longest: int
    classes: dict[str, int] | None
    padding: float
    missing: float
    log_std: SummaryStats | None
    log_mean: SummaryStats | None
    constant: int
    flat_windows: float | None
    repeated: int
    unlabelled: int = 0
    unequal_steps: int = 0
    roles: dict[str, str] = field(default_factory=dict)

    @property
    def series(self) -> int:
        return self.cases * self.channels


@dataclass(frozen=True)
class DatasetStats:
    """Statistics of a dataset.

    files: the file of each split.
    leaked: cases of the test split that are in the train split, bit for bit.
    """

    name: str
    format: str
    files: dict[str, str]
    splits: dict[str, SplitStats]
    leaked: int


def inspect_dataset(files: DatasetFiles) -> DatasetStats:
    """Return the statistics of a dataset.

    Raises:
        InputError: a split cannot be read.
    """
    names = ["train"] if files.test is None else ["train", "test"]
    splits, keys = {}, {}
    for split in names:
        raw = files.read_raw(split)
        splits[split], keys[split] = _inspect_split(raw, files.clean(raw, split))
    train_keys = set(keys["train"])
    leaked = sum(key in train_keys for key in keys.get("test", ()))
    paths = {split: str(files.path(split)) for split in names}
    return DatasetStats(files.name, file_suffix(files.train).removeprefix("."), paths, splits, leaked)


def total(datasets: Iterable[DatasetStats]) -> dict[str, int]:
    """Return sums over datasets and splits."""
    datasets = list(datasets)
    splits = [split for dataset in datasets for split in dataset.splits.values()]
    cases = {f"{name}_cases": sum(d.splits[name].cases for d in datasets if name in d.splits) for name in ("train", "test")}
    series, values = sum(split.series for split in splits), sum(split.values for split in splits)
    return {"sets": len(datasets), **cases, "series": series, "values": values}


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return each label once, whole numbers by size and before texts."""
    return sorted(set(labels), key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def _inspect_split(raw: Cases, cleaned: Cases) -> tuple[SplitStats, list[bytes]]:
    """Return the statistics of a split, and one key per case that is the same for the same values."""
    trimmed = [_trim(case) for case in raw.series]
    stored, values = (sum(case.size for case in series) for series in (raw.series, trimmed))
    keys = [_key(case) for case in trimmed]
    lengths = [case.shape[-1] for case in trimmed]
    scales = _scales(cleaned.series)
    count = Counter([] if raw.labels is None else raw.labels.tolist())
    unlabelled = count.pop("", 0)
    statistics = SplitStats(
        cases=len(trimmed),
        channels=len(trimmed[0]),
        values=values,
        shortest=min(lengths),
        longest=max(lengths),
        classes={label: count[label] for label in sort_labels(count)} if count else None,
        padding=1 - values / stored,
        missing=sum(int(np.isnan(case).sum()) for case in trimmed) / values,
        log_std=_summary(scales.std),
        log_mean=_summary(scales.mean),
        constant=int((scales.std == 0).sum()),
        flat_windows=float(scales.flat.mean()) if len(scales.flat) else None,
        repeated=len(keys) - len(set(keys)),
        unlabelled=unlabelled if count else 0,
        unequal_steps=raw.unequal_steps,
        roles=raw.roles,
    )
    return statistics, keys


def _trim(x: Shaped[np.ndarray, "channels time"]) -> Shaped[np.ndarray, "channels _"]:
    """Return a case without the padding that `clean_series` cuts."""
    steps = np.flatnonzero(~np.isnan(x).all(0))
    return x[:, steps[0] : steps[-1] + 1]


def _key(x: Shaped[np.ndarray, "channels time"]) -> bytes:
    # NaN has many bit patterns, and 0 two.
    x = np.where(np.isnan(x), np.nan, x.astype(np.float64) + 0.0)
    return hashlib.blake2b(repr(x.shape).encode() + x.tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class _Scales:
    """Standard deviation and mean of every series, and whether each of its windows is flat."""

    std: Float[np.ndarray, " series"]
    mean: Float[np.ndarray, " series"]
    flat: Bool[np.ndarray, " windows"]


def _scales(cases: Sequence[Shaped[np.ndarray, "channels _"]]) -> _Scales:
    by_length = defaultdict(list)
    for case in cases:
        by_length[case.shape[-1]].append(case)
    parts = [_scales_of(np.concatenate(group).astype(np.float64)) for group in by_length.values()]
    return _Scales(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("std", "mean", "flat")))


def _scales_of(x: Float[np.ndarray, "series time"]) -> _Scales:
    # Less the first value and over the largest magnitude: constants have a deviation of 0, and squares stay finite.
    shifted = x - x[:, :1]
    scale = np.abs(shifted).max(1, keepdims=True)
    shifted = shifted / np.where(scale > 0, scale, 1)
    windows = shifted[:, : shifted.shape[1] // WINDOW * WINDOW].reshape(len(x), -1, WINDOW)
    flat = np.ptp(windows, axis=2) <= FLAT * np.ptp(shifted, axis=1)[:, None]
    mean = x.mean(1)
    # The mean of a normalised series is rounding noise, without a scale.
    mean[np.abs(mean) <= np.finfo(np.float32).eps * np.abs(x).max(1)] = 0
    return _Scales(shifted.std(1) * scale[:, 0], mean, flat.ravel())


def _summary(scales: Float[np.ndarray, " series"]) -> SummaryStats | None:
    logs = np.log10(np.abs(scales[scales != 0]))
    return SummaryStats(float(logs.min()), float(np.median(logs)), float(logs.max())) if len(logs) else None
