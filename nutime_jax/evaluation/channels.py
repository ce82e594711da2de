"""Fewer channels, where there are many: those that vary most, or their principal components."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nutime_jax.errors import InputError

RULES = ("variance", "pca")


@dataclass(frozen=True)
class ChannelSelection:
    """A linear map of channels that was fitted on training cases.

    mean: taken from every channel, shape (channels,).
    weights: of every channel in every channel that is kept, shape (keep, channels).
    """

    mean: Float[np.ndarray, " channels"]
    weights: Float[np.ndarray, "keep channels"]

    def apply(self, series: Sequence[Float[np.ndarray, "channels _"]]) -> list[Float[np.ndarray, "keep _"]]:
        """The kept channels of cases of any length.

        Raises:
            InputError: a case has another number of channels.
        """
        return [self._apply(one, i) for i, one in enumerate(series)]

    def _apply(self, one: np.ndarray, place: int) -> np.ndarray:
        if len(one) != len(self.mean):
            raise InputError(f"case {place} has {len(one)} channels; the selection was fitted on {len(self.mean)}")
        if not self.mean.any() and np.isin(self.weights, (0, 1)).all():
            return one[self.weights.argmax(1)]  # as they are, to the last digit
        return (self.weights @ (one - self.mean[:, None])).astype(np.float32)


def select_channels(train_series: Sequence[Float[np.ndarray, "channels _"]], *, how: str = "variance", keep: int) -> ChannelSelection:
    """Fits a selection of channels on training cases, every point of which counts alike.

    Args:
        train_series: clean cases (channels, time), see `data.series.clean_series`.
        how: "variance" keeps the channels of the largest variance, in their order and on their scale, so a channel in
            small units is kept last; "pca" keeps the components of the largest variance of the channels brought to mean 0
            and variance 1, which units do not touch.
        keep: channels kept.

    Raises:
        InputError: no cases, an unknown rule, or more channels to keep than there are.
    """
    if how not in RULES:
        raise InputError(f"rule {how!r} is unknown; choose one of {', '.join(RULES)}")
    if not len(train_series):
        raise InputError("there are no training cases; channels cannot be chosen without")
    channels = len(train_series[0])
    if not 1 <= keep <= channels:
        raise InputError(f"{keep} channels cannot be kept of {channels}; keep 1 to {channels}")
    mean, covariance = channel_moments(train_series)
    variance = np.diag(covariance)
    if how == "variance":
        kept = np.sort(np.argsort(-variance, kind="stable")[:keep])
        return ChannelSelection(np.zeros(channels), np.eye(channels)[kept])
    scale = 1 / np.sqrt(np.where(variance > 0, variance, 1))
    axes = np.linalg.eigh(covariance * np.outer(scale, scale))[1][:, ::-1][:, :keep].T
    signs = np.sign(axes[np.arange(keep), np.abs(axes).argmax(1)])  # an axis has no direction of its own
    return ChannelSelection(mean, axes * signs[:, None] * scale)


def channel_moments(series: Sequence[np.ndarray]) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, "channels channels"]]:
    """Mean and covariance of the channels over all points of all cases, in two passes."""
    points = sum(one.shape[1] for one in series)
    mean = sum(one.sum(1, dtype=np.float64) for one in series) / points
    products = (centred @ centred.T for centred in (one.astype(np.float64) - mean[:, None] for one in series))
    return mean, sum(products) / points
