"""Resumable evaluation sweeps over methods, datasets and protocols. Each combination is one cached cell."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from nutime_jax.config import SweepConfig
from nutime_jax.data.datasets import DatasetFiles
from nutime_jax.data.point_anomaly import PointAnomalySeries
from nutime_jax.encoder import Encoder
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.evaluation.cells import Cell, CellStore
from nutime_jax.evaluation.features import FeatureSpec, Task, cases_digest, digest, encoder_digest, read_task
from nutime_jax.evaluation.protocols.baselines import baseline_metrics
from nutime_jax.evaluation.protocols.point_anomaly import Scorer, encoder_scores, point_metrics, residual_scores, zscore_scores
from nutime_jax.evaluation.protocols.registry import EncodedDataset, ProtocolRun, plan_runs
from nutime_jax.evaluation.results import Failure, Row
from nutime_jax.loading import load_encoder, untrained_encoder
from nutime_jax.models.network import NuTimeEncoder, check_diff_orders, check_input_lengths, check_num_window_offsets

UNTRAINED = "untrained:"
"""Before the path of an encoder: its untrained twin, drawn from the seed of its run."""

UNSEEDED_BASELINES = ("raw_1nn", "raw_1nn_dtw")
"""Baselines that sample nothing at random: further seeds would repeat the result."""

POINT_ANOMALY = "point_anomaly"

POINT_BASELINES: dict[str, Scorer] = {"residual": residual_scores, "zscore": zscore_scores}
"""What the encoders have to beat on monitored series."""


@dataclass(frozen=True)
class SweepEncoder:
    """An encoder in a sweep. Several of one name are repetitions, told apart by their number."""

    name: str
    number: int
    encoder: Encoder
    digest: str


def find_encoders(entries: Sequence[str]) -> list[SweepEncoder]:
    """The encoders of a sweep, from entries "name=path" or "name=untrained:path"; a name may be repeated.

    Raises:
        InputError: an entry of another form, or a path without an encoder.
    """
    found: list[SweepEncoder] = []
    for entry in entries:
        name, equals, where = entry.partition("=")
        if not (name and equals and where):
            raise InputError(f"encoder {entry!r} has no name; write name={entry}, or name={UNTRAINED}{entry} for its untrained twin")
        loaded = load_encoder(where.removeprefix(UNTRAINED))
        encoder = untrained_encoder(loaded.config, trained=loaded) if where.startswith(UNTRAINED) else loaded
        number = sum(one.name == name for one in found)
        found.append(SweepEncoder(name, number, encoder, encoder_digest(encoder)))
    return found


def make_runs(config: SweepConfig, network: NuTimeEncoder) -> list[ProtocolRun]:
    """Return every protocol of a sweep with every setting, for encoders of such a network.

    Raises:
        InputError: an unknown protocol, layer, length or setting.
    """
    return plan_runs(config, _feature_specs(config, network))


def _feature_specs(config: SweepConfig, network: NuTimeEncoder) -> list[FeatureSpec]:
    offsets = [
        0 if one == "encoder" else check_num_window_offsets(int(one) if str(one).isdecimal() else one, network)
        for one in config.num_window_offsets
    ]
    orders = [() if one == "encoder" else check_diff_orders(one.split("+")) for one in config.diff_orders]
    lengths = [() if one == "encoder" else check_input_lengths(one.split("+"), network) for one in config.input_lengths]
    choices = itertools.product(_layers(config.layers, network.config.depth), config.poolings, config.channels, lengths, offsets, orders)
    # What reads every layer is there once.
    return list(dict.fromkeys(FeatureSpec(None if pooling == "all_layers" else layer, pooling, *rest) for layer, pooling, *rest in choices))


def _layers(names: Sequence[str], depth: int) -> list[int | None]:
    if tuple(names) == ("all",):
        return [*range(depth + 1), None]
    wrong = [name for name in names if name != "last" and not (name.isdecimal() and int(name) <= depth)]
    if wrong:
        raise InputError(f"layer {wrong[0]!r} does not exist; choose all, last, or 0 to {depth}")
    return [None if name == "last" else int(name) for name in names]


class CellTask(NamedTuple):
    """A cell, what computes it, and how many cases (or points) it is about."""

    cell: Cell
    selection: str
    compute: Callable[[], dict[str, float]]
    train_cases: int
    test_cases: int


class DatasetTasks(NamedTuple):
    """A set, or a monitored series: opened, it gives its work."""

    name: str
    cells: int
    open: Callable[[], Iterator[CellTask]]


class SweepProgress(NamedTuple):
    """Where a sweep is: the set and the method, and cells done of all."""

    dataset: str
    method: str
    done: int
    total: int


class Sweep:
    """A grid of encoder x set x protocol x setting x seed, and the baselines on the same sets.

    Cells that are in the folder are not computed again. A cell that fails is listed, and the sweep goes on.

    Args:
        config: see docs/configuration.md.
        sets: the sets to classify.
        point_anomaly: the series whose points are to be watched.
        folder: where cells and features are kept; several processes may share it.
        shard, shards: this process and their number: each takes its own sets and series.
    """

    def __init__(
        self,
        config: SweepConfig,
        sets: Sequence[DatasetFiles],
        folder: Path,
        *,
        point_anomaly: Sequence[PointAnomalySeries] = (),
        shard: int = 0,
        shards: int = 1,
    ):
        self._config = config
        self._store, self._cache = CellStore(folder), folder / "features"
        self._encoders = find_encoders(config.encoders)
        self._runs = {one.name: make_runs(config, one.encoder.network) for one in self._encoders}
        units = [DatasetTasks(one.name, self._cells_per_dataset(), partial(self._dataset_tasks, one)) for one in sets]
        watches = len(self._encoders) + len(POINT_BASELINES)
        units += [DatasetTasks(one.name, watches, partial(self._series_tasks, one)) for one in point_anomaly]
        self._datasets = units[shard::shards]
        self.rows: list[Row] = []
        self.failures: list[Failure] = []

    def run(self) -> Iterator[SweepProgress]:
        """Computes the cells; after each, says where it is. Rows and failures are then in `rows` and `failures`."""
        done, total = 0, sum(unit.cells for unit in self._datasets)
        for unit in self._datasets:
            try:
                work = unit.open()
            except InputError as error:
                self.failures.append(Failure("all", unit.name, "", "", str(error)))
                done += unit.cells
                yield SweepProgress(unit.name, "", done, total)
                continue
            for one in work:
                self._load_or_compute(one)
                done += 1
                yield SweepProgress(unit.name, one.cell.method, done, total)

    def _cells_per_dataset(self) -> int:
        seeds = [len(self._seeds(run.seeded)) for one in self._encoders for run in self._runs[one.name]]
        return sum(seeds) + sum(len(self._seeds(name not in UNSEEDED_BASELINES)) for name in self._config.baselines)

    def _seeds(self, seeded: bool) -> tuple[int, ...]:
        """Return the seeds to run; what does not depend on the seed runs once."""
        return self._config.seeds if seeded else self._config.seeds[:1]

    def _dataset_tasks(self, files: DatasetFiles) -> Iterator[CellTask]:
        task = read_task(files)
        content = cases_digest(task.train) + cases_digest(task.test)
        sizes = {"train_cases": len(task.train.labels), "test_cases": len(task.test.labels)}
        encoded = [self._encoder_tasks(one, EncodedDataset(task, one.encoder, self._cache), content, sizes) for one in self._encoders]
        return chain(*encoded, *(self._baseline_tasks(name, task, content, sizes) for name in self._config.baselines))

    def _encoder_tasks(self, one: SweepEncoder, dataset: EncodedDataset, content: str, sizes: dict[str, int]) -> Iterator[CellTask]:
        for run in self._runs[one.name]:
            seeds = self._seeds(run.seeded)
            for place, seed in enumerate(seeds):
                # Repetitions of an encoder, and of a protocol that draws, are numbered through.
                number = one.number * len(seeds) + place
                cell = Cell(one.name, dataset.task.name, run.protocol, run.setting, number, f"{one.digest}{content}{seed}")
                yield CellTask(cell, run.selection, partial(run.compute, dataset, seed), **sizes)

    def _baseline_tasks(self, name: str, task: Task, content: str, sizes: dict[str, int]) -> Iterator[CellTask]:
        for seed in self._seeds(name not in UNSEEDED_BASELINES):
            cell = Cell(name, task.name, "baseline", "", seed, f"{content}{seed}")
            yield CellTask(cell, "train", partial(baseline_metrics, name, task.train, task.test, seed=seed), **sizes)

    def _series_tasks(self, series: PointAnomalySeries) -> Iterator[CellTask]:
        halves = {half: getattr(series, half) for half in ("train", "test")}
        content = digest([part.tobytes() for half in halves.values() for part in (half.values, half.labels)])
        sizes = {f"{name}_cases": len(half.values) for name, half in halves.items()}
        setting = f"window={self._config.window} stride={self._config.stride}"
        for one in self._encoders:
            scorer = partial(encoder_scores, encoder=one.encoder, window=self._config.window, stride=self._config.stride)
            cell = Cell(one.name, series.name, POINT_ANOMALY, setting, one.number, one.digest + content)
            yield CellTask(cell, "train", partial(_point_scores, series, scorer), **sizes)
        for name, scorer in POINT_BASELINES.items():
            yield CellTask(Cell(name, series.name, POINT_ANOMALY, "", 0, content), "train", partial(_point_scores, series, scorer), **sizes)

    def _load_or_compute(self, work: CellTask) -> None:
        """Reads a cell, or computes and keeps it."""
        cell = work.cell
        rows = self._store.read(cell)
        if rows is None:
            started = time.perf_counter()
            try:
                metrics = work.compute()
            except (InputError, DivergenceError) as error:
                self.failures.append(Failure(cell.method, cell.dataset, cell.protocol, cell.setting, str(error)))
                return
            shared = {"selection": work.selection, "train_cases": work.train_cases, "test_cases": work.test_cases}
            shared["seconds"] = time.perf_counter() - started
            rows = [Row(*cell.identity, metric, value, **shared) for metric, value in metrics.items()]
            self._store.write(cell, rows)
        self.rows += rows


def _point_scores(series: PointAnomalySeries, scorer: Scorer) -> dict[str, float]:
    return point_metrics(scorer(series), series)
