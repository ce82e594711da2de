"""Features as frames: of any series here, of Parquet files on a cluster by Ray Data, of frames by `mapInPandas` of Spark.

Tables are wide: one row per series. Labels and ids are copied; the order of rows is that of the engine.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from nutime_jax.data.features import column_names
from nutime_jax.data.inputs import read_series
from nutime_jax.data.parts import list_parts, make_empty_folder, map_part
from nutime_jax.errors import InputError, extra

if TYPE_CHECKING:
    import pandas

    from nutime_jax.encoder import Encoder


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

    Each worker is an actor that loads the encoder once. It reads consecutive row groups of a file, and writes one file for them.
    A lost worker is replaced, and its row groups are embedded again. Connect with `ray.init(address)` before the call; otherwise
    a local cluster is started.

    Args:
        encoder: name of a shipped encoder, or path of an encoder, workdir or checkpoint that all nodes can read.
        source: file or folder of wide Parquet tables: a path that all nodes can read, or gs://… or s3://….
        out: folder of the features, absent or empty: columns id and label if present, and f0, f1, …. Names of files follow the
            order of the source.
        workers: number of actors.
        cpus_per_worker, gpus_per_worker: resources of each actor, which computes in as many threads.
        rows_per_batch: series per batch.
        setting: named setting of the encoder, "fast" or "accurate"; None is its default.
        options: options of `Encoder.embed`, such as `layer` and `channels`, but not channels="none".

    Raises:
        InputError: Ray is not installed, `source` has no Parquet file, `out` has files, or a row is not a series.
    """
    with extra("ray"):
        import ray
        import ray.data

    parts = list_parts(source, workers=workers)
    make_empty_folder(out)
    if not ray.is_initialized():
        ray.init()
    done = ray.data.from_items(parts, override_num_blocks=len(parts)).map(  # Ray replaces lost actors
        _RayActor,
        fn_constructor_args=(os.fspath(encoder), setting, options),
        fn_constructor_kwargs={"source": source, "out": out, "cpus": cpus_per_worker, "rows_per_batch": rows_per_batch},
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=cpus_per_worker,
        num_gpus=gpus_per_worker,
    )
    done.materialize()


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
    """A callable that loads an encoder once and embeds frames. The process is its own: compiled functions are found again on disk."""

    def __init__(self, encoder: str | os.PathLike, setting: str | None, options: dict[str, Any]):
        from nutime_jax.compilation_cache import enable_compilation_cache
        from nutime_jax.loading import load_encoder

        enable_compilation_cache()
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


class _RayActor:
    """A callable that embeds a part of a file and writes a file. Only names go through Ray's object store."""

    def __init__(
        self, encoder: str, setting: str | None, options: dict[str, Any], *, source: str, out: str, cpus: float, rows_per_batch: int
    ):
        os.environ["NPROC"] = str(max(1, int(cpus)))  # threads of XLA, which otherwise has one per CPU of the machine
        self._actor = _EmbedActor(encoder, setting, options)
        self._places = {"source": source, "out": out, "rows_per_batch": rows_per_batch}

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        map_part(self._actor.columns, part, **self._places)
        return {"name": part["name"]}


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
