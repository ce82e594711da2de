"""Input of the training step: a streamed corpus, a corpus in device memory, synthetic series, or a mixture."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Key

from nutime_jax.config import AugmentConfig, DataConfig, PretrainConfig
from nutime_jax.core.augmentations import make_augmentation
from nutime_jax.core.views import Views, two_views
from nutime_jax.data.corpus import Corpus
from nutime_jax.data.device_corpus import MAX_POINTS, PackedSeries, corpus_bytes, load_device_corpus
from nutime_jax.data.loader import class_sampling_probs, iterate_batches, load_indices
from nutime_jax.distributed.mesh import (
    batch_sharding,
    check_divisible,
    make_global_batch,
    process_local_rows,
    replicated_sharding,
    shard_tree,
)
from nutime_jax.errors import InputError
from nutime_jax.options import format_value
from nutime_jax.synthetic import synthetic_series

log = logging.getLogger(__name__)

CPU_CORPUS_BYTES = 1e9
"""Largest corpus that is held in memory on a CPU by default."""
MakeViews = Callable[[Key[Array, ""], Any], Views]
"""(key, batch) -> two views per series, inside the step."""


@dataclass(frozen=True)
class CorpusBatches:
    """Batches that the host samples ahead: padded series, each process its own rows, or indices of series in device memory.

    packed: the corpus in device memory; None reads padded series. The series of a step are the same.
    """

    corpus: Corpus
    class_probs: np.ndarray
    mesh: Mesh
    rows: int
    seed: int
    steps: int
    threads: int
    packed: PackedSeries | None = None

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Yield the batches of the steps from `start_step` on."""
        batches = partial(
            iterate_batches,
            self.corpus,
            self.class_probs,
            batch_size=self.rows,
            seed=self.seed,
            start=start_step,
            stop=self.steps,
            threads=self.threads,
        )
        if self.packed is None:
            for batch in batches(rows=process_local_rows(self.rows, self.mesh)):
                yield make_global_batch(batch, self.mesh)
            return
        for batch in batches(load=load_indices):
            yield {"index": shard_tree(batch["index"], replicated_sharding(self.mesh)), "corpus": self.packed}


@dataclass(frozen=True)
class NoBatches:
    """Empty batches of a run whose series are all synthetic."""

    steps: int

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Yield an empty batch for each step from `start_step` on."""
        return itertools.repeat({}, self.steps - start_step)


InputPipeline = CorpusBatches | NoBatches


class CorpusSize(NamedTuple):
    """Numbers that determine the memory of a corpus on a device."""

    points: int
    series: int


def count_synthetic(data: DataConfig, *, batch_size: int) -> int:
    """Return the number of synthetic rows per batch."""
    return round(data.synthetic_fraction * batch_size)


def choose_on_device(data: DataConfig, corpus: Corpus | None, mesh: Mesh) -> bool:
    """Return whether devices hold the corpus (`data.on_device`), and log why.

    Raises:
        InputError: they have to, and it does not fit into the free memory.
    """
    if corpus is None:
        return False
    size, stats = corpus_bytes(corpus), [device.memory_stats() for device in mesh.local_devices]
    # CPUs report no statistics.
    quarter = min(used["bytes_limit"] / 4 if used else CPU_CORPUS_BYTES for used in stats)
    if data.on_device is None:
        chosen, why = size <= quarter and corpus.num_points <= MAX_POINTS, f"at most {quarter / 1e9:.2g} GB of a device are used for it"
    else:
        chosen, why = data.on_device, f"data.on_device is {format_value(data.on_device)}"
    free = min(used["bytes_limit"] - used["bytes_in_use"] if used else math.inf for used in stats)
    if chosen and size > free:
        needs = f"the corpus needs {size / 1e9:.1f} GB of every device, {free / 1e9:.1f} GB are free"
        raise InputError(f"{needs}; set config.data.on_device=false")
    log.info("corpus of %.3g GB: %s (%s)", size / 1e9, "in device memory" if chosen else "streamed", why)
    return chosen


def make_input_pipeline(data: DataConfig, corpus: Corpus | None, mesh: Mesh, *, batch_size: int, seed: int, steps: int) -> InputPipeline:
    """Return the source of batches.

    Args:
        data: `on_device` is that of `choose_on_device`; None streams.
        corpus: None if every row is synthetic.
        batch_size: rows per step, synthetic rows included.
        seed: of the order of a streamed corpus.
        steps: number of steps of the run.

    Raises:
        InputError: the rows are not divisible over the devices, or the source weights do not fit.
    """
    rows = batch_size - count_synthetic(data, batch_size=batch_size)
    if not rows:
        return NoBatches(steps)
    class_probs = class_sampling_probs(corpus, alpha=data.class_balance_alpha, weights=data.source_weights)
    packed = _put_on_devices(corpus, mesh) if data.on_device else None
    if packed is None:
        check_divisible(rows, mesh)
    return CorpusBatches(corpus, class_probs, mesh, rows=rows, seed=seed, steps=steps, threads=data.reader_threads, packed=packed)


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
    if data.on_device and size is None:
        raise InputError("data.on_device is true and the size of the corpus is not known; pass its points and series")
    if data.on_device is False or size is None:
        check_divisible(rows, mesh)
        abstract = partial(_abstract, batch_sharding(mesh))
        return {
            "series": abstract(jnp.float32, rows, data.max_length),
            "length": abstract(jnp.int32, rows),
            "offset": abstract(jnp.float32, rows),
        }
    abstract = partial(_abstract, replicated_sharding(mesh))
    packed = PackedSeries(
        values=abstract(jnp.float32, size.points),
        starts=abstract(jnp.int32, size.series),
        lengths=abstract(jnp.int32, size.series),
        offsets=abstract(jnp.float32, size.series),
    )
    return {"index": abstract(jnp.int32, rows), "corpus": packed}


def make_views(config: PretrainConfig) -> list[MakeViews]:
    """Return the functions (key, batch) -> two views per series of each view length, which run inside the step."""
    sizes = [{"batch_size": config.batch_size, "length": length} for length in config.training_lengths]
    return [_make_views(config.data, config.augment, **size) for size in sizes]


def _make_views(data: DataConfig, augment: AugmentConfig, *, batch_size: int, length: int) -> MakeViews:
    crop = {"size": length, "ratio": augment.crop_ratio}
    if augment.transforms:
        crop["augment"] = make_augmentation(augment.transforms)
    synthetic = count_synthetic(data, batch_size=batch_size)
    generated = partial(synthetic_views, count=synthetic, length=length, **crop)
    if synthetic == batch_size:
        return generated
    sampled = partial(corpus_views, **crop)
    return partial(mixed_views, first=sampled, second=generated) if synthetic else sampled


def corpus_views(key: Key[Array, ""], batch: dict[str, Any], **crop: Any) -> Views:
    """Return views of padded series, or of series of a corpus in device memory, see `CorpusBatches`."""
    if "corpus" not in batch:
        return two_views(key, batch["series"], batch["length"], offsets=batch["offset"], **crop)
    index, packed = batch["index"], batch["corpus"]
    starts, offsets = packed.starts[index], packed.offsets[index]
    return two_views(key, packed.values, packed.lengths[index], starts=starts, offsets=offsets, **crop)


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


def _put_on_devices(corpus: Corpus, mesh: Mesh) -> PackedSeries:
    return jax.tree.map(lambda array: shard_tree(array, replicated_sharding(mesh)), load_device_corpus(corpus))


def _abstract(sharding: NamedSharding, dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
