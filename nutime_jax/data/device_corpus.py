"""Series packed end to end in flat arrays for device memory: corpora of pretraining and cases of fine-tuning."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from nutime_jax.data.corpus import Corpus
from nutime_jax.errors import InputError

MAX_POINTS = np.iinfo(np.int32).max
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


def load_device_corpus(corpus: Corpus) -> PackedSeries:
    """Read a full corpus into memory, see `corpus_bytes`.

    Raises:
        InputError: int32 cannot represent all indices.
    """
    if corpus.num_points > MAX_POINTS:
        raise InputError(f"the corpus has {corpus.num_points} time points, more than {MAX_POINTS}; set data.on_device=false")
    blocks = (np.arange(first, min(first + READ_RECORDS, len(corpus))) for first in range(0, len(corpus), READ_RECORDS))
    series = ((record.values, record.offset) for block in blocks for record in corpus.read(block))
    return pack_series(series, num_points=corpus.num_points, num_series=len(corpus))


def corpus_bytes(corpus: Corpus) -> int:
    """Return the bytes of a packed corpus: 4 per time point and 12 per series."""
    return 4 * corpus.num_points + 12 * len(corpus)
