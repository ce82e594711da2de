"""The encoder's face: give it series of any length and scale, get features."""

import dataclasses
import functools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from nutime_jax.bundle import save_bundle
from nutime_jax.config import PretrainConfig, to_dict, update
from nutime_jax.core.resample import resize_all
from nutime_jax.data.inputs import clean_cases, iter_clean_cases
from nutime_jax.data.series import centre_to_float32, difference, split_long_series
from nutime_jax.distributed.mesh import default_microbatch_size, make_local_mesh, replicated, split
from nutime_jax.errors import InputError
from nutime_jax.models.configuration import build_encoder, check_diff_orders, check_input_lengths, check_num_window_offsets
from nutime_jax.models.microbatch import map_microbatches
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.pooling import Read, ReadLayers, ReadTokens, ReadVector, check_pooling
from nutime_jax.models.window_offsets import average_over_offsets, make_offset_views, window_offset_starts

CHANNELS = ("mean", "concat", "none")
KIND, SCHEMA = "encoder", 1


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A frozen encoder.

    config: configuration of its run. `model`, `length` (time points of a view), `data.max_length` (maximum time points of
        an encoded piece), and `input_lengths`, `diff_orders`, `num_window_offsets` and `pooling` of `evaluation` determine its features.
    variables: the weights of its network.
    """

    config: PretrainConfig
    variables: Any

    @property
    def network(self) -> NuTimeEncoder:
        """The Flax module."""
        return build_encoder(self.config.model)

    @property
    def input_lengths(self) -> tuple[int, ...]:
        """Points that a series is resized to before it is encoded, once for each; its features are put side by side."""
        return self.config.evaluation.input_lengths or (self.config.length,)

    @property
    def diff_orders(self) -> tuple[int, ...]:
        """What is encoded, 0 the series itself and 1 the differences of neighbouring points; their features are put side by side."""
        return self.config.evaluation.diff_orders or (0,)

    @property
    def num_window_offsets(self) -> int:
        """How often a series is cut into windows, each time a share of a window further on; its features are averaged."""
        return self.config.evaluation.num_window_offsets

    @property
    def pooling(self) -> str:
        """What is read of the tokens unless one asks for something else, see `models.pooling.pool_tokens`."""
        return self.config.evaluation.pooling

    def with_options(
        self,
        *,
        input_lengths: Sequence[int] | None = None,
        num_window_offsets: int | None = None,
        diff_orders: Sequence[int] | None = None,
    ) -> "Encoder":
        """Return a copy with other feature-extraction settings. The weights are shared. None keeps the current value.

        Args:
            input_lengths: Lengths to which each series is resized, in time points. Features of all lengths are concatenated.
                Short lengths cover more context per window; long lengths keep more detail.
            num_window_offsets: Number of window offsets, from 1 to the window stride. Features are averaged over the offsets.
                This reduces the dependence on window boundaries. Cost grows linearly.
            diff_orders: Difference orders: (0,) the series, (1,) its first difference, (0, 1) both, concatenated. Differences
                expose small fast changes on top of a large slow trend.

        Raises:
            InputError: Windows do not tile a length exactly; a length needs more than `max_tokens` tokens; the number of
                offsets or a difference order is out of range.
        """
        chosen = {
            "input_lengths": check_input_lengths(self.input_lengths if input_lengths is None else input_lengths, self.network),
            "num_window_offsets": check_num_window_offsets(
                self.num_window_offsets if num_window_offsets is None else num_window_offsets, self.network
            ),
            "diff_orders": check_diff_orders(self.diff_orders if diff_orders is None else diff_orders),
        }
        return dataclasses.replace(self, config=update(self.config, {"evaluation": chosen}))

    @functools.cached_property
    def _placed(self) -> tuple[Mesh, Any]:
        """All devices of this process, and the weights on each of them."""
        mesh = make_local_mesh()
        # By way of NumPy: those of a run may lie on devices of other processes as well.
        return mesh, jax.device_put(jax.tree.map(np.asarray, self.variables), replicated(mesh))

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle and a copy keep: the fields, and nothing that lies on devices."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __repr__(self) -> str:
        # Its weights would fill screens wherever an estimator that has an encoder is printed.
        model, lengths = self.config.model, "+".join(map(str, self.input_lengths))
        return f"<Encoder {self.config.name!r}: width {model.width}, depth {model.depth}, length {lengths}>"

    def embed(
        self,
        X: Any,
        *,
        layer: int | None = None,
        pooling: str | None = None,
        channels: str = "mean",
        batch_size: int = 256,
        tokens: bool = False,
    ) -> np.ndarray | Iterator[np.ndarray]:
        """Features of series of any length and scale, missing values allowed (see `data.series.clean_series`).

        Every channel is encoded alone; one that is longer than the corpus's longest (`config.data.max_length`) is cut as
        corpora are (`data.series.split_long_series`), and its features are the mean over the pieces. Neither the batch size nor
        what else is in X changes the features of a case beyond rounding (1e-5). The input is not touched. Only devices of
        this process are used.

        Args:
            X: (cases, time), (cases, channels, time), a sequence of arrays (time,) or (channels, time), a pandas frame
                (see `data.inputs.clean_cases`); or an iterator of such arrays, each a case.
            layer, pooling: see `models.pooling.pool_tokens`; those of each difference order and input
                length are concatenated. None is `pooling` of the encoder, and "cls+mean" of a layer that is asked for.
            channels: "mean" over the channels of a case, "concat", or "none": (cases, channels, features).
            batch_size: pieces of channels embedded at once.
            tokens: return the window tokens of `layer` themselves, in the order of time, without the CLS token, of the
                series itself at `config.length` points; `pooling` is not looked at. The tokens of the pieces of a long series
                follow one another. Windows of several sizes have no such order. With "concat" those of the channels stand side by side.

        Returns:
            float32, (cases, features); features are width for "cls" or "mean", twice that for "cls+mean", and that
            once per layer for "all_layers"; times the number of input lengths and of difference orders. With tokens,
            (cases, windows, width), or (cases, channels, windows, width) for "none". For an iterator: an iterator of the
            rows of that array, in order, which reads ahead by less than three batches and keeps no more than these.

        Raises:
            InputError: X is empty, or not numbers of such a shape, or an option is unknown. Of an iterator, when the case
                is drawn.
        """
        pooling = self.choose_pooling(layer=layer, pooling=pooling)
        self._check_options(layer=layer, pooling=pooling, channels=channels, batch_size=batch_size, tokens=tokens)
        read = ReadTokens(layer) if tokens else ReadVector(layer, pooling)
        gather = partial(_gather_case, channels=channels, over_pieces=_end_to_end if tokens else _mean)
        if isinstance(X, Iterator):
            return self._stream(read, iter_clean_cases(X), gather, int(batch_size))
        cases = clean_cases(X)
        if tokens and len(lengths := {self._pieces(len(case[0])) for case in cases}) > 1:
            counts = sorted(lengths)
            raise InputError(f"series are cut into {counts} pieces, of unequally many tokens; give series of one length, or iter(X)")
        return _stack(self._stream(read, iter(cases), gather, int(batch_size)), len(cases))

    def embed_layers(self, series: Sequence[np.ndarray], *, batch_size: int = 256) -> np.ndarray:
        """CLS token and mean window token of every layer, for sweeps over poolings; otherwise as `embed`.

        Args:
            series: channels, (time,) each, as `data.series.clean_series` gives them.
            batch_size: pieces of channels embedded at once.

        Returns:
            float32, (series, layers, 2, features): layers 0 to depth and then the normalised last, CLS before mean; width
            features for each of `input_lengths`, and for each of `diff_orders`.
        """
        gather = partial(_gather_case, channels="mean", over_pieces=_mean)
        return _stack(self._stream(ReadLayers(), (one[None] for one in series), gather, batch_size), len(series))

    def choose_pooling(self, *, layer: int | None, pooling: str | None) -> str:
        """The pooling that is meant: the one that is given, or the encoder's own; that of all layers is not that of a layer."""
        if pooling is not None:
            return pooling
        return "cls+mean" if layer is not None and self.pooling == "all_layers" else self.pooling

    def save(self, folder: str | os.PathLike, *, card: str = "", half: bool = False) -> Path:
        """Writes the encoder to a bundle (`bundle`), which `load_encoder` reads; an older encoder there is replaced.

        Only the fields of the configuration that belong to an encoder are saved (`options`).

        Args:
            card: text for readers, in Markdown: what it was trained on, what it is good for, under which terms.
            half: round parameters to float16 (11 bits), for half the file; they are float32 again when they are loaded.

        Raises:
            InputError: the folder cannot be written, or holds something else, or a parameter is too large for float16.
        """
        about = {"encoder": to_dict(self.config, encoder=True)}
        arrays = flatten_dict(jax.tree.map(np.asarray, self.variables), sep="/")
        if half:
            arrays |= {name: _halved(name, array) for name, array in arrays.items() if name.startswith("params/")}
        return save_bundle(folder, about, arrays, kind=KIND, schema=SCHEMA, card=card)

    def _check_options(self, *, layer, pooling, channels, batch_size, tokens) -> None:
        check_pooling(self.config.model.depth, layer=layer, pooling=pooling)
        if not isinstance(channels, str) or channels not in CHANNELS:
            raise InputError(f"channels {channels!r} is unknown; choose one of {', '.join(CHANNELS)}")
        if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; choose a whole number from 1 up")
        if not isinstance(tokens, (bool, np.bool)):
            raise InputError(f"tokens is {tokens!r}; choose True or False")
        if tokens and self.config.model.extra_window_sizes:
            sizes = ", ".join(str(size) for size, _ in self.config.model.window_specs)
            raise InputError(f"windows are of {sizes} points, and have no one order in time; leave tokens out, or use windows of one size")

    def _pieces(self, length: int) -> int:
        return -(-length // self.config.data.max_length)

    def _stream(self, read: Read, cases: Iterator[np.ndarray], gather: Callable[..., np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
        """One array a case, in order: `read` of the pieces of its channels, (channels, pieces, …), `gather`ed."""
        longest = self.config.data.max_length
        shapes: deque[tuple[int, int]] = deque()

        def pieces() -> Iterator[np.ndarray]:
            for case in cases:
                cut = [piece for channel in case for piece in split_long_series(channel, longest)]
                shapes.append((len(case), len(cut) // len(case)))
                yield from cut

        rows = self._encode_pieces(read, pieces(), batch_size)
        for first in rows:
            shape = shapes.popleft()
            block = np.array([first, *islice(rows, math.prod(shape) - 1)])
            yield gather(block.reshape(*shape, *first.shape))

    def _encode_pieces(self, read: Read, pieces: Iterator[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
        """`read` of each piece, in order. While devices work on a batch, the next is made and the last one handed out."""
        mesh, variables = self._placed
        one_view = (0,), (self.config.length,), 1
        orders, lengths, offsets = (
            one_view if isinstance(read, ReadTokens) else (self.diff_orders, self.input_lengths, self.num_window_offsets)
        )
        options = {"read": read, "network": self.network, "microbatch_size": default_microbatch_size(mesh), "num_window_offsets": offsets}
        sizes = [length + window_offset_starts(offsets, self.config.model.window_stride)[-1] for length in lengths]
        working: list[jax.Array] = []
        waiting = 0
        while batch := list(islice(pieces, batch_size)):
            rows, started = _padded_rows(len(batch), batch_size, mesh.size), []
            for arrays in _views(batch, orders, sizes, rows=rows):
                if mesh.size > 1:  # to one device the program takes them itself, in a tenth of the time
                    arrays = jax.device_put(arrays, split(mesh))
                with jax.default_matmul_precision("highest"):
                    started.append(_encode(variables, *arrays, **options))
            yield from _side_by_side(working, waiting)
            working, waiting = started, len(batch)
        yield from _side_by_side(working, waiting)


def resize_series(series: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Series (time,) of any lengths, resized to `size` points as they are before they are encoded; (cases, size)."""
    ((views, offsets),) = _views(series, (0,), (size,), rows=len(series))
    return views if not offsets.any() else views + offsets.astype(np.float64)[:, None]


def _views(
    series: Sequence[np.ndarray], orders: Sequence[int], sizes: Sequence[int], *, rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Series (time,) taken apart, they or their differences, by `orders`, resized to each of `sizes`: (rows, size), and what is to be
    added to each; rows without a series are 0."""
    values, taken = zip(*map(centre_to_float32, series), strict=True)
    offsets = np.zeros(rows, np.float32)
    offsets[: len(series)] = taken
    for order in orders:
        # What was taken from all values alike is no part of their differences.
        chosen, added = (list(map(difference, values)), np.zeros_like(offsets)) if order else (values, offsets)
        for size in sizes:
            yield resize_all(chosen, size, rows=rows), added


def _side_by_side(arrays: Sequence[jax.Array], count: int) -> Iterator[np.ndarray]:
    """The first `count` rows of arrays, joined along their last axis."""
    if len(arrays) > 1:
        return iter(np.concatenate([np.asarray(array)[:count] for array in arrays], axis=-1))
    return chain.from_iterable(np.asarray(array)[:count] for array in arrays)


def _halved(name: str, array: np.ndarray) -> np.ndarray:
    if (largest := np.abs(array).max(initial=0)) > np.finfo(np.float16).max:
        raise InputError(f"{name} has {largest:.3g}, too large for float16; save the encoder without half")
    return array.astype(np.float16)


def _mean(block: np.ndarray) -> np.ndarray:
    return block.mean(1) if block.shape[1] > 1 else block[:, 0]


def _end_to_end(block: np.ndarray) -> np.ndarray:
    """(channels, pieces, tokens, width) -> (channels, pieces * tokens, width)."""
    return block.reshape(len(block), -1, block.shape[-1])


def _gather_case(block: np.ndarray, *, channels: str, over_pieces: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What a case gets of the arrays of its pieces, (channels, pieces, …): first over pieces, then over channels."""
    each = over_pieces(block)
    if channels == "none":
        return each
    if len(each) == 1:
        return each[0]
    return each.mean(0) if channels == "mean" else np.concatenate(each, axis=-1)


def _stack(rows: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Rows of one shape, without a second copy of all."""
    first = next(rows)
    stacked = np.empty((count, *first.shape), np.float32)
    stacked[0] = first
    for place, row in enumerate(rows, 1):
        stacked[place] = row
    return stacked


def _padded_rows(rows: int, batch_size: int, devices: int) -> int:
    """A whole batch, or what is left over by quartering it, and halving it below 16: few shapes, little waste."""
    padded = batch_size
    while (smaller := padded // (4 if padded > 16 else 2)) >= rows:
        padded = smaller
    return -(-padded // devices) * devices


@partial(jax.jit, static_argnames=("read", "microbatch_size", "network", "num_window_offsets"))
def _encode(variables, views, offsets, *, read: Read, network: NuTimeEncoder, microbatch_size: int | None, num_window_offsets: int = 1):
    """What `read` makes of the encoding of each view, (batch, …), averaged over the window offsets."""

    def encode(network, views, offsets):
        return read(network(views[:, None], offsets[:, None], last=read.last))

    arrays = make_offset_views(views, num_window_offsets, network.config.window_stride), jnp.repeat(offsets, num_window_offsets, axis=0)
    found = network.apply(
        variables, *arrays, method=lambda network, *arrays: map_microbatches(encode, network, *arrays, microbatch_size=microbatch_size)
    )
    return average_over_offsets(found, num_window_offsets)
