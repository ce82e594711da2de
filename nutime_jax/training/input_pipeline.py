"""What a step is fed, and the views it makes of it: a streamed batch, a resident corpus, synthetic series, or a mixture."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from nutime_jax.config import PretrainConfig
from nutime_jax.core.augmentations import make_augmentation
from nutime_jax.core.views import Views, two_views
from nutime_jax.data.corpus import Corpus
from nutime_jax.data.device_corpus import Resident, load_resident
from nutime_jax.data.loader import batches, class_shares
from nutime_jax.distributed.mesh import check_divisible, local_rows, place, place_batch, replicated, split
from nutime_jax.errors import InputError
from nutime_jax.synthetic import synthetic_series

MakeViews = Callable[[Key[Array, ""], Any], Views]


class Feed(NamedTuple):
    """batches: from a step on, what each step is given, on the devices; views: what a step makes of it, inside the step."""

    batches: Callable[[int], Iterator[Any]]
    views: MakeViews


def synthetic_rows(config: PretrainConfig) -> int:
    """Rows of every batch that are synthetic."""
    return round(config.data.synthetic_fraction * config.batch_size)


class CorpusSize(NamedTuple):
    """What the memory of a resident corpus depends on."""

    points: int
    series: int
    classes: int


def make_views(config: PretrainConfig) -> MakeViews:
    """What a step makes of its batch; its `data`, `augment`, `batch_size` and `length` count."""
    crop = {"size": config.length, "ratio": config.augment.crop_ratio}
    if config.augment.transforms:
        crop["augment"] = make_augmentation(config.augment.transforms)
    synthetic = synthetic_rows(config)
    real = config.batch_size - synthetic
    generated = partial(synthetic_views, count=synthetic, length=config.length, **crop)
    if not real:
        return generated
    drawn = partial(resident_views, count=real, **crop) if config.data.on_device else partial(streamed_views, **crop)
    return partial(mixed_views, first=drawn, second=generated) if synthetic else drawn


def make_feed(config: PretrainConfig, corpus: Corpus | None, mesh: Mesh) -> Feed:
    """The feed that a configuration describes.

    Args:
        config: its `data`, `augment`, `seed`, `steps`, `batch_size` and `length` count.
        corpus: None when every row is synthetic.

    Raises:
        InputError: rows that the devices cannot share evenly, weights that do not fit, a corpus too large to be resident.
    """
    rows = config.batch_size - synthetic_rows(config)
    if not rows:
        return Feed(lambda start: itertools.repeat({}, config.steps - start), make_views(config))
    shares = class_shares(corpus, alpha=config.data.class_balance_alpha, weights=config.data.source_weights)
    make = _resident if config.data.on_device else _streamed
    return Feed(make(config, corpus, shares, mesh, rows=rows), make_views(config))


def describe_batch(config: PretrainConfig, mesh: Mesh, *, size: CorpusSize | None = None) -> Any:
    """Shapes, dtypes and shardings of what every step of `make_feed` is given, without a corpus.

    A streamed series is taken to be as long as `data.max_length` allows.

    Args:
        size: of the corpus, if it is resident.

    Raises:
        InputError: rows that the devices cannot share evenly, or a resident corpus of unknown size.
    """
    rows = config.batch_size - synthetic_rows(config)
    if not rows:
        return {}
    if not config.data.on_device:
        check_divisible(rows, mesh)
        shapes = {"series": ((rows, config.data.max_length), jnp.float32), "length": ((rows,), jnp.int32), "offset": ((rows,), jnp.float32)}
        return {name: jax.ShapeDtypeStruct(*one, sharding=split(mesh)) for name, one in shapes.items()}
    if size is None:
        raise InputError("data.on_device is true and the size of the corpus is not known; give its points, series and classes")
    counts = Resident(size.points, *(size.series,) * 3, *(size.classes,) * 3)
    kinds = Resident(jnp.float32, jnp.int32, jnp.int32, jnp.float32, jnp.int32, jnp.int32, jnp.float32)
    return jax.tree.map(lambda count, kind: jax.ShapeDtypeStruct((count,), kind, sharding=replicated(mesh)), counts, kinds)


def _streamed(config: PretrainConfig, corpus: Corpus, shares: np.ndarray, mesh: Mesh, *, rows: int) -> Callable[[int], Iterator[Any]]:
    check_divisible(rows, mesh)
    options = {"batch_size": rows, "seed": config.seed, "stop": config.steps, "threads": config.data.reader_threads}
    options["rows"] = local_rows(rows, mesh)
    return lambda start: (place_batch(batch, mesh) for batch in batches(corpus, shares, start=start, **options))


def _resident(config: PretrainConfig, corpus: Corpus, shares: np.ndarray, mesh: Mesh, *, rows: int) -> Callable[[int], Iterator[Any]]:
    resident = load_resident(corpus, shares)
    size = sum(array.nbytes for array in resident)
    free = _free_bytes(mesh)
    if size > free:
        raise InputError(
            f"the corpus takes {size / 1e9:.1f} GB of every device, {free / 1e9:.1f} GB are free; set config.data.on_device=false"
        )
    placed = place(resident, jax.tree.map(lambda _: replicated(mesh), resident))
    return lambda start: itertools.repeat(placed, config.steps - start)


def _free_bytes(mesh: Mesh) -> float:
    """Memory left on the fullest device; unknown (on CPUs) counts as enough."""
    stats = [device.memory_stats() for device in mesh.local_devices]
    return min(one["bytes_limit"] - one["bytes_in_use"] if one else math.inf for one in stats)


def streamed_views(key: Key[Array, ""], batch: dict[str, Array], **crop: Any) -> Views:
    """Views of the series of a padded batch, see `data.pipeline.batches`."""
    return two_views(key, batch["series"], batch["length"], offsets=batch["offset"], **crop)


def resident_views(key: Key[Array, ""], corpus: Resident, *, count: int, **crop: Any) -> Views:
    """Views of `count` series drawn from a corpus on the device, by the law of `data.pipeline.draw_records`."""
    draw_key, crop_key = jax.random.split(key)
    records = draw_resident(draw_key, corpus, count=count)
    starts, lengths, offsets = corpus.starts[records], corpus.lengths[records], corpus.offsets[records]
    return two_views(crop_key, corpus.values, lengths, starts=starts, offsets=offsets, **crop)


def draw_resident(key: Key[Array, ""], corpus: Resident, *, count: int) -> Int[Array, " {count}"]:
    """Numbers of series: a class by its share, then a series of it; each row has a key of its own, on any number of devices."""

    def draw(key):
        class_key, series_key = jax.random.split(key)
        one = jnp.searchsorted(corpus.class_bounds, jax.random.uniform(class_key), side="right")
        one = jnp.minimum(one, len(corpus.class_bounds) - 1)
        size = corpus.class_sizes[one]
        return corpus.class_starts[one] + jax.random.randint(series_key, (), 0, size)

    return jax.vmap(draw)(jax.random.split(key, count))


def synthetic_views(key: Key[Array, ""], batch: Any, *, count: int, length: int, **crop: Any) -> Views:
    """Views of `count` new synthetic series of `length` points; the batch is not looked at."""
    series_key, crop_key = jax.random.split(key)
    series = synthetic_series(series_key, count=count, length=length)
    return two_views(crop_key, series, jnp.full(count, length), **crop)


def mixed_views(key: Key[Array, ""], batch: Any, *, first: MakeViews, second: MakeViews) -> Views:
    """The views of two sources in one batch, interleaved, so that every device gets the same mixture of its own rows."""
    first_key, second_key = jax.random.split(key)
    return jax.tree.map(_interleave, first(first_key, batch), second(second_key, batch))


def _interleave(a: Float[Array, "m *rest"], b: Float[Array, "n *rest"]) -> Float[Array, "m+n *rest"]:
    groups = math.gcd(len(a), len(b))
    parts = [one.reshape(groups, -1, *one.shape[1:]) for one in (a, b)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *a.shape[1:])
