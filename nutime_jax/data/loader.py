"""Batches of a corpus, loaded by Grain: padded series, or their indices."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from nutime_jax.data.corpus import Corpus
from nutime_jax.data.series import pad_series
from nutime_jax.errors import InputError, extra

with extra("train"):
    import grain

Batch = dict[str, np.ndarray]
READ_SERIES = 2048
"""Series per read, of several steps at once: a read of 64 records takes as much CPU time as 200 more in the same read (measured)."""


def class_sampling_probs(corpus: Corpus, *, alpha: float, weights: Sequence[float] = ()) -> np.ndarray:
    """Return the sampling probability of each class, (classes,).

    A class of n series has a probability proportional to n**alpha: 0 makes classes equal, as in the official implementation
    (which weighs every series by 1/n), 1 makes series equal. Series without a label are not a class: each has the mean
    probability of a labelled series. Parts have probabilities proportional to `weights`, one per part; without weights, to
    the sum over their classes, as if the corpus were one part.

    Raises:
        InputError: the number of weights is not that of the parts, or none is above zero.
    """
    sizes, unlabelled = corpus.class_sizes.astype(np.float64), corpus.unlabelled
    probs = sizes**alpha
    if unlabelled.any():
        labelled = ~unlabelled
        probs[unlabelled] = sizes[unlabelled] * (probs[labelled].sum() / sizes[labelled].sum() if labelled.any() else 1)
    if len(weights):
        totals = np.bincount(corpus.class_parts, probs)
        probs *= (_check_weights(corpus, weights) / totals)[corpus.class_parts]
    return probs / probs.sum()


def source_shares(corpus: Corpus, *, alpha: float, weights: Sequence[float] = ()) -> dict[str, float]:
    """Return the fraction of the samples of each source of a corpus; see `class_sampling_probs`."""
    shares = np.bincount(corpus.class_parts, class_sampling_probs(corpus, alpha=alpha, weights=weights))
    return {part.name: float(share) for part, share in zip(corpus.parts, shares, strict=True)}


def _check_weights(corpus: Corpus, weights: Sequence[float]) -> np.ndarray:
    names = [part.name for part in corpus.parts]
    numbers = np.array(weights, float)
    if len(numbers) != len(names) or not 0 < numbers.sum() < np.inf:
        given = ",".join(f"{weight:g}" for weight in weights)
        raise InputError(f"data.source_weights is {given}; give a number for each of {', '.join(names)}, one above 0")
    return numbers


def sample_record_indices(class_sizes: np.ndarray, class_probs: np.ndarray, *, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Return the record indices of the global batch of a step, (batch_size,).

    A class is sampled by its probability, then a record of the class, with replacement.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, step]))
    classes = random.choice(len(class_probs), batch_size, p=class_probs)
    starts = np.cumsum(class_sizes) - class_sizes
    return starts[classes] + (random.random(batch_size) * class_sizes[classes]).astype(np.int64)


def load_padded(corpus: Corpus, indices: np.ndarray) -> Batch:
    """Return records as {"series": (batch, corpus.max_length), "length", "offset": (batch,)}."""
    records = corpus.read(indices)
    series, length = pad_series([record.values for record in records], corpus.max_length)
    return {"series": series, "length": length, "offset": np.array([record.offset for record in records])}


def load_indices(corpus: Corpus, indices: np.ndarray) -> Batch:
    """Return the indices of records in a corpus that is in device memory."""
    return {"index": indices.astype(np.int32)}


def iterate_batches(
    corpus: Corpus,
    class_probs: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    rows: np.ndarray | None = None,
    threads: int = 2,
    load: Callable[[Corpus, np.ndarray], Batch] = load_padded,
) -> Iterator[Batch]:
    """Yield batches start to stop - 1.

    A batch depends only on the corpus, seed and step: a run that resumes at step n passes start=n. With several processes
    each reads its rows of the same global batch, in their order.

    Args:
        class_probs: see `class_sampling_probs`.
        batch_size: size of the global batch.
        rows: rows of this process, see `mesh.process_local_rows`; None is all rows.
        threads: reader threads; they read ahead.
        load: (corpus, record indices) -> batch, `load_padded` or `load_indices`.
    """
    rows = np.arange(batch_size) if rows is None else rows
    count = max(1, READ_SERIES // len(rows))

    def read(first: int) -> list[Batch]:
        steps = range(first, min(first + count, stop))
        sample = partial(sample_record_indices, corpus.class_sizes, class_probs, seed=seed, batch_size=batch_size)
        batches = load(corpus, np.concatenate([sample(step=step)[rows] for step in steps]))
        return [{name: array[i * len(rows) : (i + 1) * len(rows)] for name, array in batches.items()} for i in range(len(steps))]

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return itertools.chain.from_iterable(grain.MapDataset.range(start, stop, count).map(read).to_iter_dataset(options))
