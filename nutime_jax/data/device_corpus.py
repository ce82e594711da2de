"""Series packed end to end in flat arrays for device memory: corpora of pretraining and cases of fine-tuning."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from nutime_jax.data.corpus import Corpus
from nutime_jax.errors import InputError

READ_RECORDS = 8192
"""Records per read."""


class PackedSeries(NamedTuple):
    """Series of any lengths in one array. The arrays are NumPy arrays until they are copied to devices.

    values: time points of all series.
    starts, lengths, offsets: of each series: index of its first time point, number of time points, and the value to add.
    """

    values: Float32[np.ndarray, " points"]
    starts: Int32[np.ndarray, " *series"]
    lengths: Int32[np.ndarray, " *series"]
    offsets: Float32[np.ndarray, " *series"]


class DeviceCorpus(NamedTuple):
    """A corpus whose series are sorted by class.

    class_starts, class_sizes: of each class: index of its first series, and number of series.
    class_bounds: cumulative sampling probabilities of the classes; the last is 1.
    """

    packed: PackedSeries
    class_starts: Int32[np.ndarray, " classes"]
    class_sizes: Int32[np.ndarray, " classes"]
    class_bounds: Float32[np.ndarray, " classes"]


def pack_series(series: Iterable[tuple[np.ndarray, float]], *, num_points: int, num_series: int) -> PackedSeries:
    """Pack series (values, offset) into arrays of fixed sizes. Unused entries are series of one time point, 0.

    Args:
        num_points, num_series: sizes of the arrays, at least those of the series.
    """
    values = np.zeros(num_points, np.float32)
    starts, lengths = np.zeros(num_series, np.int32), np.ones(num_series, np.int32)
    offsets, end = np.zeros(num_series, np.float32), 0
    for i, (points, offset) in enumerate(series):
        starts[i], lengths[i], offsets[i] = end, len(points), offset
        values[end : end + len(points)] = points
        end += len(points)
    return PackedSeries(values, starts, lengths, offsets)


def load_device_corpus(corpus: Corpus, class_probs: np.ndarray) -> DeviceCorpus:
    """Read a full corpus into memory: 4 bytes per time point and 12 per series.

    Args:
        class_probs: sampling probability of each class, see `data.loader`.

    Raises:
        InputError: int32 cannot represent all indices.
    """
    points = sum(part.card["points"] for part in corpus.parts)
    if points > np.iinfo(np.int32).max:
        raise InputError(f"the corpus has {points} time points, more than 2**31 - 1; set data.on_device=false")
    blocks = (np.arange(first, min(first + READ_RECORDS, len(corpus))) for first in range(0, len(corpus), READ_RECORDS))
    series = ((record.values, record.offset) for block in blocks for record in corpus.read(block))
    sizes = corpus.class_sizes
    return DeviceCorpus(
        packed=pack_series(series, num_points=points, num_series=len(corpus)),
        class_starts=(np.cumsum(sizes, dtype=np.int64) - sizes).astype(np.int32),
        class_sizes=sizes.astype(np.int32),
        class_bounds=np.cumsum(class_probs).astype(np.float32),
    )
