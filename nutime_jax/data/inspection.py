"""What a set holds, in numbers: facts to look at before training. They describe, and choose nothing."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from nutime_jax.data.datasets import Cases, DatasetFiles

WINDOW = 16
"""Points of a window, as in the shipped configurations."""
FLAT = 1e-3
"""A window is flat that moves by less than this share of the range of its series."""


@dataclass(frozen=True)
class Spread:
    """Of one number a series: its extremes over the series, and the one in the middle."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class SplitFacts:
    """What a split holds; a series is a channel of a case.

    values: all values, missing ones between known ones included, padding not.
    shortest, longest: points of a case, without padding.
    classes: cases of each label; None without labels.
    padding: share of steps that are missing in all channels at either end of a case, of all values in the file.
    missing: share of the other missing values, of `values`.
    log_std, log_mean: log10 of the standard deviation, and of the magnitude of the mean, where these are not 0; a mean
        below the rounding of float32 is.
    constant: series that do not move.
    flat_windows: share of windows that (nearly) do not move; None where every series is shorter than a window.
    repeated: cases that stand in the split before, bit for bit.
    """

    cases: int
    channels: int
    values: int
    shortest: int
    longest: int
    classes: dict[str, int] | None
    padding: float
    missing: float
    log_std: Spread | None
    log_mean: Spread | None
    constant: int
    flat_windows: float | None
    repeated: int

    @property
    def series(self) -> int:
        return self.cases * self.channels


@dataclass(frozen=True)
class SetFacts:
    """What a set holds.

    files: the file of each split.
    leaked: cases of the test split that stand in the train split, bit for bit.
    """

    name: str
    format: str
    files: dict[str, str]
    splits: dict[str, SplitFacts]
    leaked: int


def inspect_set(files: DatasetFiles) -> SetFacts:
    """Reads a set, and counts.

    Raises:
        InputError: a split cannot be read.
    """
    names = ["train"] if files.test is None else ["train", "test"]
    facts, keys = {}, {}
    for split in names:
        raw = files.read_raw(split)
        facts[split], keys[split] = _inspect_split(raw, files.clean(raw, split))
    known = set(keys["train"])
    leaked = sum(key in known for key in keys.get("test", ()))
    paths = {split: str(files.path(split)) for split in names}
    return SetFacts(files.name, files.train.suffix.lower().removeprefix("."), paths, facts, leaked)


def total(sets: Iterable[SetFacts]) -> dict[str, int]:
    """Sums over sets and splits."""
    sets = list(sets)
    splits = [split for one in sets for split in one.splits.values()]
    cases = {f"{name}_cases": sum(one.splits[name].cases for one in sets if name in one.splits) for name in ("train", "test")}
    return {"sets": len(sets), **cases, "series": sum(one.series for one in splits), "values": sum(one.values for one in splits)}


def in_order(labels: Iterable[str]) -> list[str]:
    """Each label once, whole numbers by size and before words."""
    return sorted(set(labels), key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def _inspect_split(raw: Cases, cleaned: Cases) -> tuple[SplitFacts, list[bytes]]:
    """The facts of a split, and a key a case that is the same for the same values."""
    trimmed = [_trim(one) for one in raw.series]
    stored, values = (sum(one.size for one in series) for series in (raw.series, trimmed))
    keys = [_key(one) for one in trimmed]
    lengths = [one.shape[-1] for one in trimmed]
    scales = _scales(cleaned.series)
    count = Counter([] if raw.labels is None else raw.labels.tolist())
    facts = SplitFacts(
        cases=len(trimmed),
        channels=len(trimmed[0]),
        values=values,
        shortest=min(lengths),
        longest=max(lengths),
        classes=None if raw.labels is None else {label: count[label] for label in in_order(count)},
        padding=1 - values / stored,
        missing=sum(int(np.isnan(one).sum()) for one in trimmed) / values,
        log_std=_spread(scales.std),
        log_mean=_spread(scales.mean),
        constant=int((scales.std == 0).sum()),
        flat_windows=float(scales.flat.mean()) if len(scales.flat) else None,
        repeated=len(keys) - len(set(keys)),
    )
    return facts, keys


def _trim(x: Shaped[np.ndarray, "channels time"]) -> Shaped[np.ndarray, "channels _"]:
    """A case without the padding that `clean_series` cuts."""
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
    for one in cases:
        by_length[one.shape[-1]].append(one)
    parts = [_scales_of(np.concatenate(group).astype(np.float64)) for group in by_length.values()]
    return _Scales(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("std", "mean", "flat")))


def _scales_of(x: Float[np.ndarray, "series time"]) -> _Scales:
    # Less the first value and over the largest magnitude: constants have a deviation of 0, and squares stay finite.
    first = x[:, :1]
    moved = x - first
    scale = np.abs(moved).max(1, keepdims=True)
    moved = moved / np.where(scale > 0, scale, 1)
    windows = moved[:, : moved.shape[1] // WINDOW * WINDOW].reshape(len(x), -1, WINDOW)
    flat = np.ptp(windows, axis=2) <= FLAT * np.ptp(moved, axis=1)[:, None]
    mean = x.mean(1)
    # Normalised series have a mean of rounding noise, and no scale of it.
    mean[np.abs(mean) <= np.finfo(np.float32).eps * np.abs(x).max(1)] = 0
    return _Scales(moved.std(1) * scale[:, 0], mean, flat.ravel())


def _spread(scales: Float[np.ndarray, " series"]) -> Spread | None:
    logs = np.log10(np.abs(scales[scales != 0]))
    return Spread(float(logs.min()), float(np.median(logs)), float(logs.max())) if len(logs) else None
