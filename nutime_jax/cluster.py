"""Features as frames: of any series here, of Parquet files on a cluster by Ray Data, of frames by `mapInPandas` of Spark.

Tables are wide: one row per series. Labels and ids are copied; the order of rows is that of the engine.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from nutime_jax.data.features import arrow_table, column_names
from nutime_jax.data.inputs import read_series
from nutime_jax.errors import InputError, extra

if TYPE_CHECKING:
    import pandas

    from nutime_jax.encoder import Encoder

log = logging.getLogger(__name__)


def distributed_embed(
    encoder: str | os.PathLike,
    source: str,
    out: str,
    *,
    workers: int = 1,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    rows_per_batch: int = 1024,
    setting: str | None = None,
    **options: Any,
) -> None:
    """Embed the series of Parquet files on a Ray cluster, and write Parquet files of features.

    Each worker is an actor that loads the encoder once. A lost worker is replaced, and its batch is computed again. Connect with
    `ray.init(address)` before the call; otherwise a local cluster is started.

    Args:
        encoder: name of a shipped encoder, or path of an encoder, workdir or checkpoint that all nodes can read.
        source: file or folder of wide Parquet tables, also in a bucket.
        out: folder of the features: columns id and label if present, and f0, f1, ….
        workers: number of actors.
        cpus_per_worker, gpus_per_worker: resources of each actor. One CPU of the cluster has to remain for reading and writing.
        rows_per_batch: series per batch.
        setting: named setting of the encoder, "fast" or "accurate"; None is its default.
        options: options of `Encoder.embed`, such as `layer` and `channels`, but not channels="none".

    Raises:
        InputError: Ray is not installed, or a row is not a series.
    """
    with extra("ray"):
        import ray
        import ray.data

    if not ray.is_initialized():
        ray.init()
    cpus = ray.cluster_resources().get("CPU", 0)
    if workers * cpus_per_worker > cpus - 1:
        problem = f"{workers} workers of {cpus_per_worker:g} CPUs leave none of the {cpus:g} CPUs of the cluster to read and write with"
        log.warning("%s: it waits for more; choose fewer workers or a smaller cpus_per_worker", problem)
    frames = ray.data.read_parquet(source)
    features = frames.map_batches(  # Ray replaces lost actors
        _RayActor,
        fn_constructor_args=(os.fspath(encoder), setting, options),
        batch_format="pandas",
        batch_size=rows_per_batch,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus_per_worker,
        num_gpus=gpus_per_worker,
    )
    features.write_parquet(out, use_dictionary=False)


def embed_frames(
    frames: "Iterable[pandas.DataFrame]", encoder: str | os.PathLike, *, setting: str | None = None, **options: Any
) -> "Iterator[pandas.DataFrame]":
    """Yield the features of frames; the encoder is loaded once.

    With Spark: `table.mapInPandas(partial(embed_frames, encoder="nutime-small"), schema)`.

    Args:
        frames: wide tables.
        encoder, setting, options: as in `distributed_embed`.

    Raises:
        InputError: a row is not a series.
    """
    actor = _EmbedActor(encoder, setting, options)
    for frame in frames:
        yield actor(frame)


class _EmbedActor:
    """A callable that loads an encoder once and embeds frames."""

    def __init__(self, encoder: str | os.PathLike, setting: str | None, options: dict[str, Any]):
        from nutime_jax.loading import load_encoder

        self._encoder, self._options = load_encoder(encoder, setting=setting), options

    def columns(self, frame: "pandas.DataFrame") -> dict[str, np.ndarray]:
        columns = _embed(self._encoder, frame, self._options)
        count = len(columns["f0"])
        if count != len(frame):
            raise InputError(f"{len(frame)} rows are {count} series; write one row per series")
        return columns

    def __call__(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        import pandas

        return pandas.DataFrame(self.columns(frame))


class _RayActor(_EmbedActor):
    """The same with Arrow tables as results: pandas takes as long for thousands of columns as the encoder."""

    def __call__(self, frame: "pandas.DataFrame") -> Any:
        return arrow_table(self.columns(frame))


def embed_frame(encoder: "Encoder | str | os.PathLike", X: Any, **options: Any) -> "pandas.DataFrame":
    """Return features with the ids and labels of their series.

    Args:
        encoder: an `Encoder`, or its name or path.
        X: series in any form of `data.inputs.read_series`, for example the path of a file.
        options: arguments of `Encoder.embed`; one vector per case.

    Returns:
        One row per case: `id` and `label`, if X has them, and float32 features `f0`, `f1`, …

    Raises:
        InputError: X is not accepted, or the options do not give one vector per case.
    """
    import pandas

    from nutime_jax.loading import load_encoder

    return pandas.DataFrame(_embed(load_encoder(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder, X, options))


def _embed(encoder: "Encoder", X: Any, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the columns of `embed_frame`."""
    cases = read_series(X)
    features = encoder.embed(cases.series, **options)
    if features.ndim != 2:
        raise InputError(f"the features of a series have shape {features.shape[1:]}; choose channels='mean' or 'concat'")
    texts = {name: values for name, values in (("id", cases.ids), ("label", cases.labels)) if values is not None}
    return {**texts, **dict(zip(column_names(features), np.ascontiguousarray(features.T), strict=True))}
