"""Input of the training step: a streamed corpus, a corpus in device memory, synthetic series, or a mixture."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int, Key

from nutime_jax.config import AugmentConfig, DataConfig, PretrainConfig
from nutime_jax.core.augmentations import make_augmentation
from nutime_jax.core.views import Views, two_views
from nutime_jax.data.corpus import Corpus
from nutime_jax.data.device_corpus import DeviceCorpus, PackedSeries, load_device_corpus
from nutime_jax.data.loader import class_sampling_probs, iterate_batches
from nutime_jax.distributed.mesh import (
    batch_sharding,
    check_divisible,
    make_global_batch,
    process_local_rows,
    replicated_sharding,
    shard_tree,
)
from nutime_jax.errors import InputError
from nutime_jax.synthetic import synthetic_series

MakeViews = Callable[[Key[Array, ""], Any], Views]
"""(key, batch) -> two views per series, inside the step."""


@dataclass(frozen=True)
class StreamedBatches:
    """Padded batches that the host reads ahead: each process its own rows."""

    corpus: Corpus
    class_probs: np.ndarray
    mesh: Mesh
    rows: int
    seed: int
    steps: int
    threads: int

    def iterate(self, start_step: int) -> Iterator[dict[str, jax.Array]]:
        """Yield the batches of the steps from `start_step` on."""
        local = iterate_batches(
            self.corpus,
            self.class_probs,
            batch_size=self.rows,
            seed=self.seed,
            start=start_step,
            stop=self.steps,
            threads=self.threads,
            rows=process_local_rows(self.rows, self.mesh),
        )
        for batch in local:
            yield make_global_batch(batch, self.mesh)


@dataclass(frozen=True)
class ConstantBatch:
    """The same arrays in every step: a corpus in device memory, or none for synthetic series."""

    arrays: Any
    steps: int

    def iterate(self, start_step: int) -> Iterator[Any]:
        """Yield the arrays for each step from `start_step` on."""
        return itertools.repeat(self.arrays, self.steps - start_step)


InputPipeline = StreamedBatches | ConstantBatch


class CorpusSize(NamedTuple):
    """Numbers that determine the memory of a corpus on a device."""

    points: int
    series: int
    classes: int


def count_synthetic(data: DataConfig, *, batch_size: int) -> int:
    """Return the number of synthetic rows per batch."""
    return round(data.synthetic_fraction * batch_size)


def make_input_pipeline(data: DataConfig, corpus: Corpus | None, mesh: Mesh, *, batch_size: int, seed: int, steps: int) -> InputPipeline:
    """Return the source of batches.

    Args:
        corpus: None if every row is synthetic.
        batch_size: rows per step, synthetic rows included.
        seed: of the order of a streamed corpus.
        steps: number of steps of the run.

    Raises:
        InputError: the rows are not divisible over the devices, the source weights do not fit, or the corpus does not fit
            into device memory.
    """
    rows = batch_size - count_synthetic(data, batch_size=batch_size)
    if not rows:
        return ConstantBatch({}, steps)
    class_probs = class_sampling_probs(corpus, alpha=data.class_balance_alpha, weights=data.source_weights)
    if data.on_device:
        return ConstantBatch(_put_on_devices(load_device_corpus(corpus, class_probs), mesh), steps)
    check_divisible(rows, mesh)
    return StreamedBatches(corpus, class_probs, mesh, rows=rows, seed=seed, steps=steps, threads=data.reader_threads)


def abstract_batch(data: DataConfig, mesh: Mesh, *, batch_size: int, size: CorpusSize | None = None) -> Any:
    """Return shapes, dtypes and shardings of a batch of `make_input_pipeline`, without a corpus.

    Streamed series are padded to `data.max_length`.

    Args:
        size: of a corpus in device memory.

    Raises:
        InputError: the rows are not divisible over the devices, or the size of a corpus in device memory is not given.
    """
    rows = batch_size - count_synthetic(data, batch_size=batch_size)
    if not rows:
        return {}
    if not data.on_device:
        check_divisible(rows, mesh)
        abstract = partial(_abstract, batch_sharding(mesh))
        return {
            "series": abstract(jnp.float32, rows, data.max_length),
            "length": abstract(jnp.int32, rows),
            "offset": abstract(jnp.float32, rows),
        }
    if size is None:
        raise InputError("data.on_device is true and the size of the corpus is not known; pass its points, series and classes")
    abstract = partial(_abstract, replicated_sharding(mesh))
    return DeviceCorpus(
        packed=PackedSeries(
            values=abstract(jnp.float32, size.points),
            starts=abstract(jnp.int32, size.series),
            lengths=abstract(jnp.int32, size.series),
            offsets=abstract(jnp.float32, size.series),
        ),
        class_starts=abstract(jnp.int32, size.classes),
        class_sizes=abstract(jnp.int32, size.classes),
        class_bounds=abstract(jnp.float32, size.classes),
    )


def make_views(config: PretrainConfig) -> list[MakeViews]:
    """Return the functions (key, batch) -> two views per series of each view length, which run inside the step."""
    sizes = [{"batch_size": config.batch_size, "length": length} for length in config.training_lengths]
    return [_make_views(config.data, config.augment, **size) for size in sizes]


def _make_views(data: DataConfig, augment: AugmentConfig, *, batch_size: int, length: int) -> MakeViews:
    crop = {"size": length, "ratio": augment.crop_ratio}
    if augment.transforms:
        crop["augment"] = make_augmentation(augment.transforms)
    synthetic = count_synthetic(data, batch_size=batch_size)
    real = batch_size - synthetic
    generated = partial(synthetic_views, count=synthetic, length=length, **crop)
    if not real:
        return generated
    sampled = partial(on_device_views, count=real, **crop) if data.on_device else partial(streamed_views, **crop)
    return partial(mixed_views, first=sampled, second=generated) if synthetic else sampled


def streamed_views(key: Key[Array, ""], batch: dict[str, Array], **crop: Any) -> Views:
    """Return views of the series of a padded batch, see `data.loader.batches`."""
    return two_views(key, batch["series"], batch["length"], offsets=batch["offset"], **crop)


def on_device_views(key: Key[Array, ""], corpus: DeviceCorpus, *, count: int, **crop: Any) -> Views:
    """Return views of `count` series, sampled from a corpus in device memory with the probabilities of `data.loader`."""
    sample_key, crop_key = jax.random.split(key)
    index, packed = sample_series(sample_key, corpus, count=count), corpus.packed
    starts, lengths, offsets = packed.starts[index], packed.lengths[index], packed.offsets[index]
    return two_views(crop_key, packed.values, lengths, starts=starts, offsets=offsets, **crop)


def sample_series(key: Key[Array, ""], corpus: DeviceCorpus, *, count: int) -> Int[Array, " {count}"]:
    """Return indices of series: a class by its probability, then a series of it.

    Each row has a key of its own, so that the result does not depend on the number of devices.
    """

    def sample(key):
        class_key, series_key = jax.random.split(key)
        label = jnp.searchsorted(corpus.class_bounds, jax.random.uniform(class_key), side="right")
        label = jnp.minimum(label, len(corpus.class_bounds) - 1)
        return corpus.class_starts[label] + jax.random.randint(series_key, (), 0, corpus.class_sizes[label])

    return jax.vmap(sample)(jax.random.split(key, count))


def synthetic_views(key: Key[Array, ""], batch: Any, *, count: int, length: int, **crop: Any) -> Views:
    """Return views of `count` new synthetic series of `length` time points; the batch is not used."""
    series_key, crop_key = jax.random.split(key)
    series = synthetic_series(series_key, count=count, length=length)
    return two_views(crop_key, series, jnp.full(count, length), **crop)


def mixed_views(key: Key[Array, ""], batch: Any, *, first: MakeViews, second: MakeViews) -> Views:
    """Return the views of two sources, interleaved, so that every device has the same mixture of its own rows."""
    first_key, second_key = jax.random.split(key)
    return jax.tree.map(_interleave, first(first_key, batch), second(second_key, batch))


def _interleave(a: Float[Array, "m *rest"], b: Float[Array, "n *rest"]) -> Float[Array, "m+n *rest"]:
    groups = math.gcd(len(a), len(b))
    parts = [rows.reshape(groups, -1, *rows.shape[1:]) for rows in (a, b)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *a.shape[1:])


def _put_on_devices(corpus: DeviceCorpus, mesh: Mesh) -> DeviceCorpus:
    """Copy a corpus to every device.

    Raises:
        InputError: it does not fit into the free memory.
    """
    size = sum(array.nbytes for array in jax.tree.leaves(corpus))
    stats = [device.memory_stats() for device in mesh.local_devices]
    # CPUs report no statistics.
    free = min(used["bytes_limit"] - used["bytes_in_use"] if used else math.inf for used in stats)
    if size > free:
        needs = f"the corpus needs {size / 1e9:.1f} GB of every device, {free / 1e9:.1f} GB are free"
        raise InputError(f"{needs}; set config.data.on_device=false")
    return shard_tree(corpus, jax.tree.map(lambda _: replicated_sharding(mesh), corpus))


def _abstract(sharding: NamedSharding, dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
