"""Channels that are encoded: a reduction, fitted on training cases only, and first differences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nutime_jax.data.series import clean_series, difference
from nutime_jax.errors import InputError


@dataclass(frozen=True)
class ChannelMap:
    """Selection or projection of the channels of a case, and their first differences; plain numbers that can be written as text.

    count: number of channels of a case.
    kept: indices of the selected channels, ascending.
    weight, bias: of a PCA projection instead: (components, count) and (components,).
    differences: whether first differences follow the channels.
    """

    count: int
    kept: tuple[int, ...] = ()
    weight: tuple[tuple[float, ...], ...] = ()
    bias: tuple[float, ...] = ()
    differences: bool = False

    @property
    def channels(self) -> int:
        """Number of channels to encode."""
        return (len(self.weight) or len(self.kept)) * (1 + self.differences)

    def apply(self, case: np.ndarray, *, name: str) -> np.ndarray:
        """Return the channels to encode of a case from `clean_series`.

        Raises:
            InputError: the case has another number of channels.
        """
        if len(case) != self.count:
            raise InputError(f"{name} has {len(case)} channels; the classifier was fitted on {self.count}")
        case = self._reduce(case, name=name)
        return np.concatenate([case, _differences(case)]) if self.differences else case

    def _reduce(self, case: np.ndarray, *, name: str) -> np.ndarray:
        if self.weight:
            mixed = np.asarray(self.weight) @ case.astype(np.float64) + np.asarray(self.bias)[:, None]
            return clean_series(mixed, name=name)
        return case if len(self.kept) == self.count else case[list(self.kept)]


def _differences(case: np.ndarray) -> np.ndarray:
    """Return first differences at the length of the case: the first one is repeated; a single time point has 0."""
    steps = np.stack([difference(channel) for channel in case])
    return np.pad(steps, ((0, 0), (case.shape[1] - steps.shape[1], 0)), mode="edge")


def fit_channels(series: Sequence[np.ndarray], *, limit: int, reduction: str, differences: bool = False) -> ChannelMap:
    """Reduce to at most `limit` channels; a dataset without more channels keeps all.

    "variance" selects the channels with the largest variance over the training cases, in the units of the data; "pca"
    projects standardised channels to their first principal components. `differences` adds first differences after that.
    """
    count = len(series[0])
    if count <= limit:
        return ChannelMap(count, tuple(range(count)), differences=differences)
    points = sum(case.shape[1] for case in series)
    mean = sum(case.sum(1, dtype=np.float64) for case in series) / points
    covariance = sum(_products(case - mean[:, None]) for case in series) / points
    variance = np.diag(covariance)
    if reduction == "variance":
        kept = np.sort(np.argsort(-variance, kind="stable")[:limit])
        return ChannelMap(count, tuple(kept.tolist()), differences=differences)
    deviation = np.where(variance > 0, np.sqrt(variance), 1)
    directions = np.linalg.eigh(covariance / np.outer(deviation, deviation))[1][:, ::-1][:, :limit].T
    # LAPACK does not define the sign of a direction: make the largest entry positive.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    weight = directions * np.sign(largest) / deviation
    return ChannelMap(count, (), tuple(map(tuple, weight.tolist())), tuple((-weight @ mean).tolist()), differences)


def _products(case: np.ndarray) -> np.ndarray:
    return case @ case.T
