"""The encoder's face: load a trained encoder, give it series of any length and scale, get features."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nutime_jax.data.series import clean_series, cut_series, pad_series, split_offset
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

    config: the configuration of the run that made it; `model`, `length` (points every series is resized to) and
        `data.max_length` (points of the longest piece that is encoded) count.
    variables: the weights of its network.
    """

    config: ConfigDict
    variables: Any

    @property
    def network(self) -> NuTimeEncoder:
        """The Flax module."""
        return build_encoder(self.config.model)

    def __repr__(self) -> str:
        # Its weights would fill screens wherever an estimator that has an encoder is printed.
        name, network = self.config.get("name", "unnamed"), self.network
        return f"<Encoder {name!r}: width {network.width}, depth {network.depth}, length {self.config.length}>"

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

        Every channel is encoded alone; one that is longer than the corpus's longest (`config.data.max_length`) is cut as
        corpora are (`data.series.cut_series`), and its features are the mean over the pieces. The result does not depend
        on the batch size beyond rounding.

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
        flat = self._map(_encode, [channel for case in cases for channel in case], batch_size, layer=layer, readout=readout)
        features = flat.reshape(len(cases), count, -1)
        if channels == "none":
            return features
        return features.mean(1) if channels == "mean" else features.reshape(len(cases), -1)

    def embed_layers(self, series: Sequence[np.ndarray], *, batch_size: int = 256) -> np.ndarray:
        """CLS token and mean window token of every layer, for sweeps over readouts; otherwise as `embed`.

        Args:
            series: channels, (time,) each, as `data.series.clean_series` gives them.
            batch_size: channels embedded at once.

        Returns:
            float32, (series, layers, 2, width): layers 0 to depth and then the normalised last, CLS before mean.
        """
        shape = (len(series), self.network.depth + 2, 2, self.network.width)
        return self._map(_encode_layers, list(series), batch_size).reshape(shape)

    def _map(self, encode: Callable[..., jax.Array], series: list[np.ndarray], batch_size: int, **options) -> np.ndarray:
        """Features of every series: `encode` of its resized pieces, averaged."""
        variables = jax.device_put(self.variables, replicated(make_mesh()))

        def call(views: jax.Array, offsets: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return encode(variables, views, offsets, network=self.network, **options)

        pieces = [cut_series(one, self.config.data.max_length) for one in series]
        counts = np.array([len(one) for one in pieces])
        features = _map_resized(call, list(chain(*pieces)), size=self.config.length, batch_size=batch_size)
        return np.add.reduceat(features, np.cumsum(counts) - counts) / counts[:, None].astype(np.float32)


def resize_series(series: Sequence[np.ndarray], size: int, *, batch_size: int = 256) -> np.ndarray:
    """Series (time,) of any lengths, resized to `size` points as they are before they are encoded; (cases, size)."""
    offsets = np.array([split_offset(one)[1] for one in series], np.float64)
    views = _map_resized(lambda views, offsets: views, series, size=size, batch_size=batch_size)
    return views if not offsets.any() else views + offsets[:, None]


def _map_resized(
    call: Callable[[jax.Array, jax.Array], jax.Array], series: Sequence[np.ndarray], *, size: int, batch_size: int
) -> np.ndarray:
    """Applies `call` to batches of resized series and their offsets, every batch of one shape, split over all devices.

    The order is kept.
    """
    mesh = make_mesh()
    order = np.argsort([len(one) for one in series], kind="stable")  # alike lengths share a padded width
    parts = []
    for begin in range(0, len(order), batch_size):
        batch, offsets = zip(*(split_offset(series[i]) for i in order[begin : begin + batch_size]), strict=True)
        padded, lengths = pad_series(list(batch), _padded_length(len(batch[-1])))
        blank = _padded_rows(len(batch), batch_size, mesh.size) - len(batch)
        padded, lengths = np.pad(padded, ((0, blank), (0, 0))), np.pad(lengths, (0, blank), constant_values=1)
        padded, lengths, offsets = jax.device_put((padded, lengths, np.pad(offsets, (0, blank))), split(mesh))
        parts.append((call(_resize_batch(padded, lengths, size=size), offsets), len(batch)))
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


def _padded_rows(rows: int, batch_size: int, devices: int) -> int:
    """A whole batch, or a quarter or a sixteenth of one for what is left over: few shapes, little waste."""
    padded = next(size for size in (batch_size // 16, batch_size // 4, batch_size) if size >= rows)
    return -(-padded // devices) * devices


def _padded_length(length: int) -> int:
    """Next power of two, at least 64: few shapes, so few compilations."""
    return min(max(64, 1 << (length - 1).bit_length()), LONGEST)


@partial(jax.jit, static_argnames="size")
def _resize_batch(series, lengths, *, size: int):
    return jax.vmap(lambda one, length: resize(one, size, length=length))(series, lengths)


@partial(jax.jit, static_argnames=("network", "layer", "readout"))
def _encode(variables, views, offsets, *, network: NuTimeEncoder, layer: int | None, readout: str):
    return read_out(network.apply(variables, views[:, None], offsets[:, None]), layer=layer, readout=readout)


@partial(jax.jit, static_argnames="network")
def _encode_layers(variables, views, offsets, *, network: NuTimeEncoder):
    encoding = network.apply(variables, views[:, None], offsets[:, None])
    layers = jnp.stack([*encoding.layers, encoding.normalised], axis=1)  # (batch, layers, tokens, width)
    return jnp.stack([layers[:, :, 0], layers[:, :, 1:].mean(2)], axis=2).reshape(len(views), -1)
