"""The encoder's face: load a trained encoder, give it series of any length and scale, get features."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nutime_jax.data.series import clean_series, pad_series
from nutime_jax.errors import InputError
from nutime_jax.models.encoder import NuTimeEncoder, build_encoder, read_out
from nutime_jax.parallel import make_mesh, replicated, split
from nutime_jax.resample import LONGEST, resize
from nutime_jax.train.checkpoint import find_checkpoint, read_about, read_arrays
from nutime_jax.train.state import build_network, encoder_variables

CHANNELS = ("mean", "concat", "none")


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A frozen encoder.

    config: the configuration of the run that made it; `model` and `length` (points every series is resized to) count.
    variables: the weights of its network.
    """

    config: ConfigDict
    variables: Any

    @property
    def network(self) -> NuTimeEncoder:
        """The Flax module."""
        return build_encoder(self.config.model)

    def embed(
        self,
        X: np.ndarray | Sequence[np.ndarray],
        *,
        layer: int | None = None,
        readout: str = "cls+mean",
        channels: str = "mean",
        batch_size: int = 256,
    ) -> np.ndarray:
        """Features of series of any length and scale, missing values allowed (see `data.series.clean_series`).

        Every channel is encoded alone. The result does not depend on the batch size beyond rounding.

        Args:
            X: (cases, time), (cases, channels, time), or a sequence of arrays (time,) or (channels, time).
            layer, readout: see `models.encoder.read_out`.
            channels: "mean" over the channels of a case, "concat", or "none": (cases, channels, features).
            batch_size: channels embedded at once.

        Returns:
            float32, (cases, features); features are width for "cls" or "mean", twice that for "cls+mean".

        Raises:
            InputError: X is empty, or not numbers of such a shape, or an option is unknown.
        """
        if channels not in CHANNELS:
            raise InputError(f"channels {channels!r} is unknown; choose one of {', '.join(CHANNELS)}")
        if not len(X):
            raise InputError("X holds no series")
        cases = [clean_series(one, name=f"case {i}") for i, one in enumerate(X)]
        counts = {len(case) for case in cases}
        if len(counts) > 1:
            raise InputError(f"cases have {sorted(counts)} channels; every case needs the same number")
        count = counts.pop()
        flat = self._embed_all([channel for case in cases for channel in case], layer, readout, batch_size)
        features = flat.reshape(len(cases), count, -1)
        if channels == "none":
            return features
        return features.mean(1) if channels == "mean" else features.reshape(len(cases), -1)

    def _embed_all(self, series: list[np.ndarray], layer: int | None, readout: str, batch_size: int) -> np.ndarray:
        network, variables = self.network, jax.device_put(self.variables, replicated(make_mesh()))

        def encode(views: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return _encode(variables, views, network=network, layer=layer, readout=readout)

        return _map_resized(encode, series, size=self.config.length, batch_size=batch_size)


def resize_series(series: Sequence[np.ndarray], size: int, *, batch_size: int = 256) -> np.ndarray:
    """Series (time,) of any lengths, resized to `size` points as they are before they are encoded; (cases, size)."""
    return _map_resized(lambda views: views, series, size=size, batch_size=batch_size)


def _map_resized(call: Callable[[jax.Array], jax.Array], series: Sequence[np.ndarray], *, size: int, batch_size: int) -> np.ndarray:
    """Applies `call` to batches of resized series, every batch of one shape, split over all devices; order is kept."""
    mesh = make_mesh()
    batch_size = -(-batch_size // mesh.size) * mesh.size
    order = np.argsort([len(one) for one in series], kind="stable")  # alike lengths share a padded width
    parts = []
    for begin in range(0, len(order), batch_size):
        batch = [series[i] for i in order[begin : begin + batch_size]]
        padded, lengths = pad_series(batch, _padded_length(len(batch[-1])))
        blank = batch_size - len(batch)
        padded, lengths = np.pad(padded, ((0, blank), (0, 0))), np.pad(lengths, (0, blank), constant_values=1)
        views = _resize_batch(*jax.device_put((padded, lengths), split(mesh)), size=size)
        parts.append((call(views), len(batch)))
    results = np.concatenate([np.asarray(part)[:n] for part, n in parts])
    restored = np.empty_like(results)
    restored[order] = results
    return restored


def load_encoder(path: str | os.PathLike) -> Encoder:
    """Loads the encoder of a workdir (its newest intact checkpoint) or of one checkpoint.

    Raises:
        InputError: there is no checkpoint, or it is damaged.
    """
    found = find_checkpoint(path)
    return Encoder(ConfigDict(read_about(found)["config"]), encoder_variables(read_arrays(found, ("params", "variables"))))


def untrained_encoder(config: ConfigDict) -> Encoder:
    """The untrained twin: the encoder of a configuration as its run starts, drawn from its seed."""
    variables = jax.jit(build_network(config).init)(jax.random.key(config.seed), jnp.zeros((2, 2, 1, config.length)))
    state = {"params": variables["params"], "variables": {"constants": variables["constants"]}}
    return Encoder(config, encoder_variables(state))


def _padded_length(length: int) -> int:
    """Next power of two, at least 64: few shapes, so few compilations."""
    return min(max(64, 1 << (length - 1).bit_length()), LONGEST)


@partial(jax.jit, static_argnames="size")
def _resize_batch(series, lengths, *, size: int):
    return jax.vmap(lambda one, length: resize(one, size, length=length))(series, lengths)


@partial(jax.jit, static_argnames=("network", "layer", "readout"))
def _encode(variables, views, *, network: NuTimeEncoder, layer: int | None, readout: str):
    return read_out(network.apply(variables, views[:, None]), layer=layer, readout=readout)
