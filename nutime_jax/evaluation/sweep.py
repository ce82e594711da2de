"""Resumable evaluation sweeps over methods, datasets and protocols. Each combination is one cached cell."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from nutime_jax.config import SweepConfig
from nutime_jax.data.datasets import DatasetFiles
from nutime_jax.data.point_anomaly import PointAnomalySeries
from nutime_jax.encoder import Encoder
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.evaluation.encoders import NamedEncoder, find_encoders
from nutime_jax.evaluation.features import FeatureSpec, Task, cases_digest, digest, encoder_digest, read_task
from nutime_jax.evaluation.protocols.baselines import baseline_metrics
from nutime_jax.evaluation.protocols.point_anomaly import Scorer, encoder_scores, point_metrics, residual_scores, zscore_scores
from nutime_jax.evaluation.protocols.registry import EncodedDataset, ProtocolRun, plan_runs
from nutime_jax.evaluation.results import CellStore, Failure, Result, SweepCell
from nutime_jax.models.network import NuTimeEncoder, check_diff_orders, check_input_lengths, check_num_window_offsets
from nutime_jax.models.pooling import ALL_LAYERS
from nutime_jax.storage import error_summary

log = logging.getLogger(__name__)

UNSEEDED_BASELINES = ("raw_1nn", "raw_1nn_dtw")
"""Baselines without randomness: other seeds would repeat the result."""

POINT_ANOMALY = "point_anomaly"

POINT_BASELINES: dict[str, Scorer] = {"residual": residual_scores, "zscore": zscore_scores}
"""Baselines of point anomaly detection."""


def make_runs(config: SweepConfig, encoder: Encoder) -> list[ProtocolRun]:
    """Return every protocol of a sweep with every setting, for an encoder.

    Raises:
        InputError: an unknown protocol, layer, length or setting.
    """
    return plan_runs(config, _feature_specs(config, encoder))


def _feature_specs(config: SweepConfig, encoder: Encoder) -> list[FeatureSpec]:
    """Return every combination of the feature settings; poolings of all layers combine with no layer, and are there once."""
    network, specs = encoder.network, {}
    for layer, pooling, channels, lengths, offsets, orders in itertools.product(
        _layers(config.layers, network.config.depth),
        config.poolings,
        config.channels,
        [_parse_lengths(text, network) for text in config.input_lengths],
        [_parse_offsets(text, network) for text in config.num_window_offsets],
        [_parse_orders(text) for text in config.diff_orders],
    ):
        spec = FeatureSpec(
            layer=None if pooling in ALL_LAYERS else layer,
            pooling=None if pooling == "encoder" else pooling,
            channels=channels,
            input_lengths=lengths,
            num_window_offsets=offsets,
            diff_orders=orders,
            setting=config.setting,
        )
        specs[spec.of(encoder)] = None
    return list(specs)


def _parse_lengths(text: str, network: NuTimeEncoder) -> tuple[int, ...]:
    return () if text == "encoder" else check_input_lengths(text.split("+"), network)


def _parse_offsets(text: str, network: NuTimeEncoder) -> int:
    return 0 if text == "encoder" else check_num_window_offsets(int(text) if text.isdecimal() else text, network)


def _parse_orders(text: str) -> tuple[int, ...]:
    return () if text == "encoder" else check_diff_orders(text.split("+"))


def _layers(names: Sequence[str], depth: int) -> list[int | None]:
    if tuple(names) == ("all",):
        return [*range(depth + 1), None]
    wrong = [name for name in names if name != "last" and not (name.isdecimal() and int(name) <= depth)]
    if wrong:
        raise InputError(f"layer {wrong[0]!r} does not exist; choose all, last, or 0 to {depth}")
    return [None if name == "last" else int(name) for name in names]


class CellTask(NamedTuple):
    """A cell, the function that computes its metrics, its numbers of cases (or time points), and the source of its encoder."""

    cell: SweepCell
    selection: str
    compute: Callable[[], dict[str, float]]
    train_cases: int
    test_cases: int
    encoder: str = ""


class DatasetTasks(NamedTuple):
    """Tasks of a dataset, or of a series with point labels: their number, and a function that reads the data and yields them."""

    name: str
    cells: int
    open: Callable[[], Iterator[CellTask]]


class SweepProgress(NamedTuple):
    """Current dataset and method of a sweep, cells done and cells in total."""

    dataset: str
    method: str
    done: int
    total: int


class Sweep:
    """A grid of encoder × dataset × protocol × setting × seed, and baselines on the same datasets.

    Cells in the folder are not computed again. A failed cell is listed, and the sweep continues.

    Args:
        config: see docs/configuration.md.
        datasets: labelled datasets.
        folder: cells and cached features; several processes may share it.
        point_anomaly: series with labelled time points.
        shard, shards: index and number of processes; each computes its own datasets and series.
    """

    def __init__(
        self,
        config: SweepConfig,
        datasets: Sequence[DatasetFiles],
        folder: Path,
        *,
        point_anomaly: Sequence[PointAnomalySeries] = (),
        shard: int = 0,
        shards: int = 1,
    ):
        self._config = config
        self._store, self._cache = CellStore(folder), folder / "features"
        self._encoders = find_encoders(config.encoders, setting=config.setting, normalise=config.normalise)
        self._runs = {encoder.name: make_runs(config, encoder.encoder) for encoder in self._encoders}
        tasks = [DatasetTasks(files.name, self._cells_per_dataset(), partial(self._dataset_tasks, files)) for files in datasets]
        scorers = len(self._encoders) + len(POINT_BASELINES)
        tasks += [DatasetTasks(series.name, scorers, partial(self._series_tasks, series)) for series in point_anomaly]
        self._datasets = tasks[shard::shards]
        self.rows: list[Result] = []
        self.failures: list[Failure] = []

    def run(self) -> Iterator[SweepProgress]:
        """Compute the cells, and yield the progress after each. `rows` and `failures` have the results."""
        done, total = 0, sum(dataset.cells for dataset in self._datasets)
        for dataset in self._datasets:
            try:
                tasks = dataset.open()
            except Exception as error:  # no dataset ends a sweep of hours
                self.failures.append(Failure("all", dataset.name, "", "", _describe(error)))
                done += dataset.cells
                yield SweepProgress(dataset.name, "", done, total)
                continue
            for task in tasks:
                self._load_or_compute(task)
                done += 1
                yield SweepProgress(dataset.name, task.cell.method, done, total)

    def _cells_per_dataset(self) -> int:
        seeds = [len(self._seeds(run.seeded)) for encoder in self._encoders for run in self._runs[encoder.name]]
        return sum(seeds) + sum(len(self._seeds(name not in UNSEEDED_BASELINES)) for name in self._config.baselines)

    def _seeds(self, seeded: bool) -> tuple[int, ...]:
        """Return the seeds to run: a single one if the result does not depend on it."""
        return self._config.seeds if seeded else self._config.seeds[:1]

    def _dataset_tasks(self, files: DatasetFiles) -> Iterator[CellTask]:
        task = read_task(files)
        content = cases_digest(task.train) + cases_digest(task.test)
        sizes = {"train_cases": len(task.train.labels), "test_cases": len(task.test.labels)}
        parts = [
            self._encoder_tasks(encoder, EncodedDataset(task, encoder.encoder, self._cache), content, sizes) for encoder in self._encoders
        ]
        return chain(*parts, *(self._baseline_tasks(name, task, content, sizes) for name in self._config.baselines))

    def _encoder_tasks(self, encoder: NamedEncoder, dataset: EncodedDataset, content: str, sizes: dict[str, int]) -> Iterator[CellTask]:
        for run in self._runs[encoder.name]:
            seeds = self._seeds(run.seeded)
            for index, seed in enumerate(seeds):
                # Repetitions of an encoder and seeds of a protocol share one numbering.
                number = encoder.number * len(seeds) + index
                content_of_cell = f"{encoder_digest(encoder.encoder)}{content}{seed}"
                cell = SweepCell(encoder.name, dataset.task.name, run.protocol, run.setting, number, content_of_cell)
                yield CellTask(cell, run.selection, partial(run.compute, dataset, seed), **sizes, encoder=encoder.source)

    def _baseline_tasks(self, name: str, task: Task, content: str, sizes: dict[str, int]) -> Iterator[CellTask]:
        for seed in self._seeds(name not in UNSEEDED_BASELINES):
            cell = SweepCell(name, task.name, "baseline", "", seed, f"{content}{seed}")
            yield CellTask(cell, "train", partial(baseline_metrics, name, task.train, task.test, seed=seed), **sizes)

    def _series_tasks(self, series: PointAnomalySeries) -> Iterator[CellTask]:
        content = digest([part.tobytes() for half in (series.train, series.test) for part in (half.values, half.labels)])
        sizes = {"train_cases": len(series.train.values), "test_cases": len(series.test.values)}
        window, stride = self._config.window, self._config.stride
        for encoder in self._encoders:
            scorer = partial(encoder_scores, encoder=encoder.encoder, window=window, stride=stride)
            setting = f"window={window} stride={stride}"
            digests = encoder_digest(encoder.encoder) + content
            cell = SweepCell(encoder.name, series.name, POINT_ANOMALY, setting, encoder.number, digests)
            yield CellTask(cell, "train", partial(_point_scores, series, scorer), **sizes, encoder=encoder.source)
        for name, scorer in POINT_BASELINES.items():
            cell = SweepCell(name, series.name, POINT_ANOMALY, "", 0, content)
            yield CellTask(cell, "train", partial(_point_scores, series, scorer), **sizes)

    def _load_or_compute(self, task: CellTask) -> None:
        """Read a cell, or compute and store it."""
        cell = task.cell
        results = self._store.read(cell)
        if results is None:
            started = time.perf_counter()
            try:
                metrics = task.compute()
            except Exception as error:  # no cell ends the others
                self.failures.append(Failure(cell.method, cell.dataset, cell.protocol, cell.setting, _describe(error)))
                return
            shared = {"selection": task.selection, "train_cases": task.train_cases, "test_cases": task.test_cases}
            shared["seconds"] = time.perf_counter() - started
            results = [Result(*cell.identity, metric, value, **shared) for metric, value in metrics.items()]
            self._store.write(cell, results)
        self.rows += [replace(result, encoder=task.encoder) for result in results]


def _describe(error: Exception) -> str:
    """Return the message of an error; the traceback of one that is a bug goes to the log."""
    if isinstance(error, InputError | DivergenceError):
        return str(error)
    log.error("a cell failed", exc_info=error)
    return f"{type(error).__name__}: {error_summary(error)}"


def _point_scores(series: PointAnomalySeries, scorer: Scorer) -> dict[str, float]:
    return point_metrics(scorer(series), series)
