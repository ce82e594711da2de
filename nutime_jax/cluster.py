"""Features as frames: of any series here, of Parquet files on a cluster by Ray Data, of frames by `mapInPandas` of Spark.

Tables are wide: one row per series. Labels and ids are copied; the order of rows is that of the engine.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nutime_jax.data.features import column_names
from nutime_jax.data.inputs import read_series
from nutime_jax.errors import InputError, extra

if TYPE_CHECKING:
    import pandas

    from nutime_jax.encoder import Encoder

RESTARTS = {"max_restarts": -1, "max_task_retries": -1}
"""Ray replaces an actor that was lost, and repeats its batch."""


def distributed_embed(
    encoder: str | os.PathLike,
    source: str,
    out: str,
    *,
    workers: int = 1,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    rows_per_batch: int = 1024,
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
        cpus_per_worker, gpus_per_worker: resources of each actor.
        rows_per_batch: series per batch.
        options: options of `Encoder.embed`, such as `layer` and `channels`, but not channels="none".

    Raises:
        InputError: Ray is not installed, or a row is not a series.
    """
    with extra("ray"):
        import ray
        import ray.data

    frames = ray.data.read_parquet(source)
    features = frames.map_batches(
        _EmbedActor,
        fn_constructor_args=(os.fspath(encoder), options),
        batch_format="pandas",
        batch_size=rows_per_batch,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus_per_worker,
        num_gpus=gpus_per_worker,
        **RESTARTS,
    )
    features.write_parquet(out)


def embed_frames(frames: "Iterable[pandas.DataFrame]", encoder: str | os.PathLike, **options: Any) -> "Iterator[pandas.DataFrame]":
    """Yield the features of frames; the encoder is loaded once.

    With Spark: `table.mapInPandas(partial(embed_frames, encoder="nutime-small"), schema)`.

    Args:
        frames: wide tables.
        encoder, options: as in `distributed_embed`.

    Raises:
        InputError: a row is not a series.
    """
    actor = _EmbedActor(encoder, options)
    for frame in frames:
        yield actor(frame)


class _EmbedActor:
    """A callable that loads an encoder once and embeds frames."""

    def __init__(self, encoder: str | os.PathLike, options: dict[str, Any]):
        from nutime_jax.loading import load_encoder

        self._encoder, self._options = load_encoder(encoder), options

    def __call__(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        features = embed_frame(self._encoder, frame, **self._options)
        if len(features) != len(frame):
            raise InputError(f"{len(frame)} rows are {len(features)} series; write one row per series")
        return features


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

    cases = read_series(X)
    encoder = load_encoder(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
    features = encoder.embed(cases.series, **options)
    if features.ndim != 2:
        raise InputError(f"the features of a series have shape {features.shape[1:]}; choose channels='mean' or 'concat'")
    texts = {name: values for name, values in (("id", cases.ids), ("label", cases.labels)) if values is not None}
    return pandas.DataFrame({**texts, **dict(zip(column_names(features), features.T, strict=True))})
