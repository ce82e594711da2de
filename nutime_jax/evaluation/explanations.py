"""Explanations: attention of the tokens of a series, and windows whose occlusion changes a classification (Zeiler and Fergus, 2014)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from nutime_jax.core.resample import resize_batch
from nutime_jax.data.inputs import clean_cases
from nutime_jax.data.series import centre_to_float32
from nutime_jax.distributed.backend import use_backend
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError

PARTS = 10
"""Default number of windows without overlap."""


class AttentionMaps(NamedTuple):
    """Attention weights of one case.

    case: the series.
    weights: from query to key tokens; each row sums to 1. Token 0 is CLS, the others are windows in order of time.
    """

    case: Float[np.ndarray, "channels time"]
    weights: Float[np.ndarray, "channels layers heads tokens tokens"]


def attention_maps(encoder: Encoder, case: Any) -> AttentionMaps:
    """Return the attention weights of every layer and head for one case; each channel is encoded alone.

    The series is resized to the first input length of the encoder, see `Encoder.lengths_of`.

    Args:
        encoder: encoder with a Transformer and one window size.
        case: one series, (time,) or (channels, time).

    Raises:
        InputError: the case is not one series or too long, or the encoder has no attention in order of time.
    """
    model, network = encoder.config.model, encoder.network
    if model.backbone != "transformer" or not model.depth or model.extra_window_sizes:
        raise InputError(f"encoder {encoder.config.name!r} has no attention maps; choose a transformer of one window size with blocks")
    series = encoder.prepare_case(clean_cases([np.asarray(case)])[0], differences=False)
    longest = encoder.config.data.max_length
    if series.shape[1] > longest:
        raise InputError(f"the series has {series.shape[1]} time points, and data.max_length is {longest}; pass a part of it")
    values, offsets = zip(*map(centre_to_float32, series), strict=True)
    views = resize_batch(list(values), encoder.lengths_of(series.shape[1])[0], rows=len(values))
    with use_backend(), jax.default_matmul_precision("highest"):
        arrays = jnp.asarray(views)[:, None], jnp.asarray(offsets, jnp.float32)[:, None]
        _, state = network.apply(jax.tree.map(jnp.asarray, encoder.variables), *arrays, mutable=["intermediates"])
    found = state["intermediates"]
    layers = [np.asarray(found[f"block_{i}"]["attention"]["weights"][0]) for i in range(model.depth)]
    return AttentionMaps(series, np.stack(layers, axis=1))


class Occlusion(NamedTuple):
    """Explanation of one case.

    case: the series, (channels, time).
    label: predicted class. probability: its probability.
    starts: first time point of each window, (windows,). size: time points of a window.
    drops: probability minus that of the series with a window of a channel occluded, (channels, windows); negative where the
        window spoke against the class.
    """

    case: Float[np.ndarray, "channels time"]
    label: Any
    probability: float
    starts: Int[np.ndarray, " windows"]
    size: int
    drops: Float[np.ndarray, "channels windows"]


def occlude(classifier: Any, case: Any, *, size: int | None = None, stride: int | None = None) -> Occlusion:
    """Explain the prediction of a fitted classifier for one case.

    A window of one channel is replaced by the straight line between the values beside it. All windows are classified in one call.

    Args:
        classifier: has `predict_proba` and `classes_`: `NuTimeClassifier`, or a classifier of `load_classifier` or `fit_probe`.
        case: one series, (time,) or (channels, time).
        size: time points of a window; None is a tenth of the series.
        stride: time points between windows; None is half of `size`.

    Raises:
        InputError: the case is not one series, or the size or the stride does not fit it.
    """
    (series,) = clean_cases([np.asarray(case)])
    channels, length = series.shape
    size = max(1, length // PARTS) if size is None else size
    stride = max(1, size // 2) if stride is None else stride
    if not 1 <= size < length:
        raise InputError(f"size is {size}, and the series has {length} time points; choose 1 to {length - 1}")
    if not 1 <= stride <= size:
        raise InputError(f"stride is {stride}, which leaves gaps between windows of {size}; choose 1 to {size}")
    starts = np.unique(np.append(np.arange(0, length - size + 1, stride), length - size))
    occluded = [_bridge(series, channel, start, size) for channel in range(channels) for start in starts]
    probabilities = np.asarray(classifier.predict_proba([series, *occluded]))
    index = int(probabilities[0].argmax())
    drops = probabilities[0, index] - probabilities[1:, index].reshape(channels, len(starts))
    return Occlusion(series, classifier.classes_[index], float(probabilities[0, index]), starts, size, drops)


def _bridge(series: np.ndarray, channel: int, start: int, size: int) -> np.ndarray:
    """Return a copy with a straight line in a window of a channel; a window at an end becomes constant."""
    copy, end, last = series.copy(), start + size, series.shape[1] - 1
    left = series[channel, start - 1] if start else series[channel, end]
    right = series[channel, end] if end <= last else left
    copy[channel, start:end] = np.linspace(left, right, size + 2)[1:-1]
    return copy
