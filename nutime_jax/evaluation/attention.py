"""Attention of the tokens of a series."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nutime_jax.core.resample import resize_batch
from nutime_jax.data.inputs import clean_cases
from nutime_jax.data.series import centre_to_float32
from nutime_jax.distributed.backend import use_backend
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError


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
