"""Reduction of channels, fitted on training cases only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nutime_jax.data.series import clean_series
from nutime_jax.errors import InputError


@dataclass(frozen=True)
class ChannelMap:
    """Selection or projection of the channels of a case, as plain numbers that can be written as text.

    count: number of channels of a case.
    kept: indices of the selected channels, ascending.
    weight, bias: of a PCA projection instead: (components, count) and (components,).
    """

    count: int
    kept: tuple[int, ...] = ()
    weight: tuple[tuple[float, ...], ...] = ()
    bias: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels after the reduction."""
        return len(self.weight) or len(self.kept)

    def apply(self, case: np.ndarray, *, name: str) -> np.ndarray:
        """Return the channels to encode of a case from `clean_series`.

        Raises:
            InputError: the case has another number of channels.
        """
        if len(case) != self.count:
            raise InputError(f"{name} has {len(case)} channels; the classifier was fitted on {self.count}")
        if self.weight:
            mixed = np.asarray(self.weight) @ case.astype(np.float64) + np.asarray(self.bias)[:, None]
            return clean_series(mixed, name=name)
        return case if len(self.kept) == self.count else case[list(self.kept)]


def fit_channels(series: Sequence[np.ndarray], *, limit: int, reduction: str) -> ChannelMap:
    """Reduce to at most `limit` channels; a dataset without more channels keeps all.

    "variance" selects the channels with the largest variance over the training cases, in the units of the data; "pca"
    projects standardised channels to their first principal components.
    """
    count = len(series[0])
    if count <= limit:
        return ChannelMap(count, tuple(range(count)))
    points = sum(case.shape[1] for case in series)
    mean = sum(case.sum(1, dtype=np.float64) for case in series) / points
    covariance = sum(_products(case - mean[:, None]) for case in series) / points
    variance = np.diag(covariance)
    if reduction == "variance":
        return ChannelMap(count, tuple(sorted(int(i) for i in np.argsort(-variance, kind="stable")[:limit])))
    deviation = np.where(variance > 0, np.sqrt(variance), 1)
    directions = np.linalg.eigh(covariance / np.outer(deviation, deviation))[1][:, ::-1][:, :limit].T
    # LAPACK does not define the sign of a direction: make the largest entry positive.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    weight = directions * np.sign(largest) / deviation
    return ChannelMap(count, (), tuple(map(tuple, weight.tolist())), tuple((-weight @ mean).tolist()))


def _products(case: np.ndarray) -> np.ndarray:
    return case @ case.T
