"""Host loop of embedding: cases to segments, batches and views, outputs of the network to one array per case."""

import functools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nutime_jax.core.resample import resize_batch
from nutime_jax.core.windows import average_over_offsets, make_offset_views, window_offset_starts
from nutime_jax.data.series import centre_to_float32, difference, split_long_series
from nutime_jax.distributed.backend import use_backend
from nutime_jax.distributed.mesh import batch_sharding, make_local_mesh, replicated_sharding
from nutime_jax.models.microbatches import Microbatches, default_microbatches, map_microbatches
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.pooling import Output, without_stem


class DeviceWeights:
    """The weights of an encoder on all devices of this process, placed at the first use."""

    def __init__(self, variables: Any):
        self._variables, self._lock = variables, threading.Lock()

    def get(self) -> tuple[Mesh, Any]:
        """Return the mesh of the devices, and the weights, replicated on them."""
        with self._lock:
            return self._placed

    @functools.cached_property
    def _placed(self) -> tuple[Mesh, Any]:
        mesh = make_local_mesh()
        # Through NumPy: weights of a run may be on devices of other processes as well.
        return mesh, jax.device_put(jax.tree.map(np.asarray, self._variables), replicated_sharding(mesh))


class Extraction(NamedTuple):
    """Network and settings that determine the outputs of a segment.

    network, weights: the Flax module, and its weights on devices.
    lengths_of: number of time points of a segment -> lengths to which it is resized.
    max_length: maximum number of time points of a segment.
    diff_orders, num_window_offsets, precision: see `Encoder.with_options`.
    """

    network: NuTimeEncoder
    weights: DeviceWeights
    lengths_of: Callable[[int], tuple[int, ...]]
    max_length: int
    diff_orders: tuple[int, ...]
    num_window_offsets: int
    precision: str


def iter_features(
    extraction: Extraction,
    output: Output,
    cases: Iterator[np.ndarray],
    *,
    combine: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Yield one array per case, in input order: `combine` of its segment outputs (channels, segments, …).

    Args:
        extraction: network and settings.
        output: which output of the network is returned.
        cases: (channels, time) each.
        combine: maps the outputs of the segments of a case to its features.
        batch_size: maximum number of segments per batch.
    """
    segments, layout = _split_cases(cases, extraction.max_length)
    outputs = _iter_outputs(extraction, output, segments, batch_size)
    for first in outputs:
        num_channels, num_segments = layout.popleft()
        rows = np.array([first, *islice(outputs, num_channels * num_segments - 1)])
        yield combine(rows.reshape(num_channels, num_segments, *first.shape))


def _split_cases(cases: Iterator[np.ndarray], max_length: int) -> tuple[Iterator[np.ndarray], deque[tuple[int, int]]]:
    """Return an iterator of the segments of all channels, and a queue of (channels, segments) per case.

    The iterator appends a case to the queue before it yields the first segment of that case.
    """
    layout: deque[tuple[int, int]] = deque()

    def iter_segments() -> Iterator[np.ndarray]:
        for case in cases:
            segments = [segment for channel in case for segment in split_long_series(channel, max_length)]
            layout.append((len(case), len(segments) // len(case)))
            yield from segments

    return iter_segments(), layout


def _iter_outputs(extraction: Extraction, output: Output, segments: Iterator[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """Yield one array per segment, in input order.

    While devices compute a batch, the host prepares the next one and yields the previous one.
    """
    network, offsets = extraction.network, extraction.num_window_offsets
    last_start = window_offset_starts(offsets, network.config.window_stride)[-1]
    with use_backend():
        mesh, variables = extraction.weights.get()
    microbatches = default_microbatches(mesh.devices.flat[0].platform, mesh.size)
    encode = partial(_encode, network=network, microbatches=microbatches, num_window_offsets=offsets)
    most = min(batch_size, mesh.size * (microbatches.min_rows or batch_size))  # rows of a program
    pending: list[_Started] = []
    while batch := list(islice(segments, batch_size)):
        started = []
        for rows, lengths in _group_by_lengths(batch, extraction.lengths_of, most):
            sizes, padded = [length + last_start for length in lengths], _padded_rows(len(rows), most, mesh.size)
            outputs = []
            for arrays in _views([batch[row] for row in rows], extraction.diff_orders, sizes, rows=padded):
                if mesh.size > 1:  # with one device, jit transfers the arrays in a tenth of the time
                    arrays = jax.device_put(arrays, batch_sharding(mesh))
                with use_backend(), jax.default_matmul_precision(extraction.precision):
                    outputs.append(encode(variables, *arrays, output=without_stem(output) if outputs else output))
            started.append(_Started(rows, outputs))
        yield from _join(pending)
        pending = started
    yield from _join(pending)


def _group_by_lengths(
    segments: Sequence[np.ndarray], lengths_of: Callable[[int], tuple[int, ...]], most: int
) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """Yield at most `most` rows that are resized to the same lengths, and these lengths."""
    groups = defaultdict(list)
    for row, segment in enumerate(segments):
        groups[lengths_of(len(segment))].append(row)
    for lengths, rows in groups.items():
        for start in range(0, len(rows), most):
            yield rows[start : start + most], lengths


def mean_segments(rows: np.ndarray) -> np.ndarray:
    """(channels, segments, …) -> (channels, …)."""
    return rows.mean(1) if rows.shape[1] > 1 else rows[:, 0]


def concatenate_segments(rows: np.ndarray) -> np.ndarray:
    """(channels, segments, tokens, width) -> (channels, segments * tokens, width)."""
    return rows.reshape(len(rows), -1, rows.shape[-1])


def combine_channels(rows: np.ndarray, *, channels: str, merge_segments: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Combine the outputs of a case, (channels, segments, …): first over segments, then over channels."""
    merged = merge_segments(rows)
    if channels == "none":
        return merged
    if len(merged) == 1:
        return merged[0]
    return merged.mean(0) if channels == "mean" else np.concatenate(merged, axis=-1)


def stack_rows(rows: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Stack rows of one shape without a second copy of all."""
    first = next(rows)
    stacked = np.empty((count, *first.shape), np.float32)
    stacked[0] = first
    for i, row in enumerate(rows, 1):
        stacked[i] = row
    return stacked


def resize_series(series: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Resize series (time,) of any lengths to `size` time points, as `iter_features` does; (cases, size)."""
    ((views, offsets),) = _views(series, (0,), (size,), rows=len(series))
    return views if not offsets.any() else views + offsets.astype(np.float64)[:, None]


def _views(
    series: Sequence[np.ndarray], diff_orders: Sequence[int], sizes: Sequence[int], *, rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield views (rows, size) and their value offsets (rows,) per difference order and size; padding rows are 0."""
    values, taken = zip(*map(centre_to_float32, series), strict=True)
    offsets = np.zeros(rows, np.float32)
    offsets[: len(series)] = taken
    for order in diff_orders:
        # Differences do not depend on the value offset.
        inputs, added = (list(map(difference, values)), np.zeros_like(offsets)) if order else (values, offsets)
        for size in sizes:
            yield resize_batch(inputs, size, rows=rows), added


class _Started(NamedTuple):
    """Outputs that devices compute, padded (rows, ...), one per input length and difference order, and their place in the batch."""

    rows: list[int]
    outputs: list[jax.Array]


def _join(groups: Sequence[_Started]) -> Iterator[np.ndarray]:
    """Yield the outputs of a batch in input order, concatenated along their last axis."""
    found = {}
    for rows, outputs in groups:
        arrays = [np.asarray(output)[: len(rows)] for output in outputs]
        found |= zip(rows, np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0], strict=True)
    return (found[row] for row in sorted(found))


def _padded_rows(rows: int, batch_size: int, devices: int) -> int:
    """Return the padded batch size: the full batch, or an eighth of it and so on. Each shape is compiled, which takes seconds."""
    padded = batch_size
    while (smaller := padded // 8) >= rows:
        padded = smaller
    return -(-padded // devices) * devices


@partial(jax.jit, static_argnames=("output", "microbatches", "network", "num_window_offsets"))
def _encode(
    variables: Any,
    views: jax.Array,
    offsets: jax.Array,
    *,
    output: Output,
    network: NuTimeEncoder,
    microbatches: Microbatches,
    num_window_offsets: int = 1,
) -> jax.Array:
    """Return the output of each view (batch, …), averaged over window offsets."""

    def apply(module: NuTimeEncoder, views: jax.Array, offsets: jax.Array) -> jax.Array:
        return output(module(views[:, None], offsets[:, None], num_output_tokens=output.num_output_tokens))

    def apply_in_microbatches(module: NuTimeEncoder, views: jax.Array, offsets: jax.Array) -> jax.Array:
        return map_microbatches(apply, module, views, offsets, microbatches=microbatches)

    views = make_offset_views(views, num_window_offsets, network.config.window_stride)
    offsets = jnp.repeat(offsets, num_window_offsets, axis=0)
    outputs = network.apply(variables, views, offsets, method=apply_in_microbatches)
    return average_over_offsets(outputs, num_window_offsets)
