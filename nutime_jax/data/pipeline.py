"""Batches of padded series, by Grain; batch number `step` depends on the corpus, the seed and the step alone."""

from collections.abc import Iterator

import grain
import numpy as np

from nutime_jax.data.corpus import Corpus
from nutime_jax.data.series import pad_series

Batch = dict[str, np.ndarray]


def draw_records(class_sizes: np.ndarray, *, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Records of the global batch number `step`: a class at random, then a record of it, with replacement.

    Every class is as likely as any other, however many records it has (the release weighs records by 1/class size).

    Returns:
        Indices into the corpus, shape (batch_size,).
    """
    random = np.random.Generator(np.random.Philox(key=[seed, step]))
    classes = random.integers(0, len(class_sizes), batch_size)
    starts = np.cumsum(class_sizes) - class_sizes
    return starts[classes] + (random.random(batch_size) * class_sizes[classes]).astype(np.int64)


def batches(
    corpus: Corpus, *, batch_size: int, seed: int, start: int, stop: int, shard: int = 0, shards: int = 1, threads: int = 2
) -> Iterator[Batch]:
    """Batches number start to stop - 1 of {"series": (batch, corpus.max_length), "length": (batch,)}.

    The position is the step: a run that resumes at step n asks for start=n and sees what it would have seen. With
    several processes each reads its own rows of the same global batch.

    Args:
        batch_size: size of the global batch, divisible by shards.
        shard, shards: this process and their number.
        threads: reader threads; they read ahead.
    """
    rows = slice(shard * batch_size // shards, (shard + 1) * batch_size // shards)

    def read(step: int) -> Batch:
        indices = draw_records(corpus.class_sizes, seed=seed, step=step, batch_size=batch_size)[rows]
        records = corpus.source.__getitems__(indices.tolist())
        series, length = pad_series([record["series"] for record in records], corpus.max_length)
        return {"series": series, "length": length}

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options))
