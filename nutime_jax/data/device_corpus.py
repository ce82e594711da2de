"""A corpus as a few flat arrays, to be placed on an accelerator once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from nutime_jax.data.corpus import Corpus
from nutime_jax.errors import InputError

CHUNK = 8192
"""Records read at once."""


class Resident(NamedTuple):
    """All series of a corpus, end to end, and where each begins; every array is NumPy's until it is placed.

    values: points of all series.
    starts, lengths, offsets: of each series: its first point, its points, and the constant to be added to them.
    class_starts, class_sizes: of each class: its first series, and how many follow.
    class_bounds: cumulative shares of the classes, the last is 1.
    """

    values: Float32[np.ndarray, " points"]
    starts: Int32[np.ndarray, " series"]
    lengths: Int32[np.ndarray, " series"]
    offsets: Float32[np.ndarray, " series"]
    class_starts: Int32[np.ndarray, " classes"]
    class_sizes: Int32[np.ndarray, " classes"]
    class_bounds: Float32[np.ndarray, " classes"]


def load_resident(corpus: Corpus, shares: np.ndarray) -> Resident:
    """Reads a whole corpus into memory, 4 bytes a point and 12 a series.

    Args:
        shares: how often each class is drawn, see `pipeline.class_shares`.

    Raises:
        InputError: the corpus has more points than an int32 can count.
    """
    points = sum(part.card["points"] for part in corpus.parts)
    if points > np.iinfo(np.int32).max:
        raise InputError(f"the corpus has {points} points, more than 2**31 - 1: too many to be resident; set data.on_device=false")
    values, count = np.empty(points, np.float32), len(corpus)
    lengths, offsets = np.empty(count, np.int32), np.empty(count, np.float32)
    end = 0
    for first in range(0, count, CHUNK):
        for number, record in enumerate(corpus.read(np.arange(first, min(first + CHUNK, count))), first):
            lengths[number], offsets[number] = len(record.values), record.offset
            values[end : end + lengths[number]] = record.values
            end += lengths[number]
    return Resident(
        values,
        _starts(lengths),
        lengths,
        offsets,
        _starts(corpus.class_sizes),
        corpus.class_sizes.astype(np.int32),
        np.cumsum(shares).astype(np.float32),
    )


def _starts(sizes: np.ndarray) -> np.ndarray:
    return (np.cumsum(sizes, dtype=np.int64) - sizes).astype(np.int32)
