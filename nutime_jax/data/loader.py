"""Batches of padded series, by Grain; batch number `step` depends on the corpus, the seed and the step alone."""

from collections.abc import Iterator, Sequence

import numpy as np

from nutime_jax.data.corpus import Corpus
from nutime_jax.data.series import pad_series
from nutime_jax.errors import InputError, extra

with extra("train"):
    import grain

Batch = dict[str, np.ndarray]


def class_shares(corpus: Corpus, *, alpha: float, weights: Sequence[float] = ()) -> np.ndarray:
    """How often each class is drawn; the shares sum to 1.

    Within a part, a class of n series is drawn in proportion to n**alpha: 0 makes all classes alike, as the release does
    (it weighs every series by 1/n), 1 all series. Parts are drawn in proportion to `weights`, one a part; without
    weights, in proportion to the sum of n**alpha over their classes, as if the corpus were one part.

    Raises:
        InputError: weights that do not fit the parts, or none above zero.
    """
    shares = corpus.class_sizes.astype(np.float64) ** alpha
    if len(weights):
        totals = np.bincount(corpus.class_parts, shares)
        shares *= (_check_weights(corpus, weights) / totals)[corpus.class_parts]
    return shares / shares.sum()


def _check_weights(corpus: Corpus, weights: Sequence[float]) -> np.ndarray:
    names = [part.name for part in corpus.parts]
    numbers = np.array(weights, float)
    if len(numbers) != len(names) or not 0 < numbers.sum() < np.inf:
        given = ",".join(f"{weight:g}" for weight in weights)
        raise InputError(f"data.source_weights is {given}; give a number for each of {', '.join(names)}, one above 0")
    return numbers


def draw_records(class_sizes: np.ndarray, shares: np.ndarray, *, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Records of the global batch number `step`: a class by its share, then a record of it, with replacement.

    Returns:
        Indices into the corpus, shape (batch_size,).
    """
    random = np.random.Generator(np.random.Philox(key=[seed, step]))
    classes = random.choice(len(shares), batch_size, p=shares)
    starts = np.cumsum(class_sizes) - class_sizes
    return starts[classes] + (random.random(batch_size) * class_sizes[classes]).astype(np.int64)


def batches(
    corpus: Corpus,
    shares: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    rows: np.ndarray | None = None,
    threads: int = 2,
) -> Iterator[Batch]:
    """Batches number start to stop - 1 of {"series": (batch, corpus.max_length), "length", "offset": (batch,)}.

    The position is the step: a run that resumes at step n asks for start=n and sees what it would have seen. With
    several processes each reads its own rows of the same global batch, in their order.

    Args:
        shares: how often each class is drawn, see `class_shares`.
        batch_size: size of the global batch.
        rows: those of this process, see `parallel.process_local_rows`; None is all of them.
        threads: reader threads; they read ahead.
    """
    rows = np.arange(batch_size) if rows is None else rows

    def read(step: int) -> Batch:
        indices = draw_records(corpus.class_sizes, shares, seed=seed, step=step, batch_size=batch_size)[rows]
        records = corpus.read(indices)
        series, length = pad_series([record.values for record in records], corpus.max_length)
        return {"series": series, "length": length, "offset": np.array([record.offset for record in records])}

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options))
