"""Sweeps: every method on every set by every protocol, a cell at a time, so that they can be stopped and continued."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nutime_jax.config import SweepConfig, TuningSettings
from nutime_jax.data.datasets import SetFiles
from nutime_jax.data.point_anomaly import Monitored
from nutime_jax.encoder import Encoder
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.evaluation.cells import Cell, CellStore
from nutime_jax.evaluation.failures import Failure
from nutime_jax.evaluation.features import (
    Readout,
    Split,
    Task,
    cases_digest,
    digest,
    encoder_digest,
    layer_features,
    read_features,
    read_task,
)
from nutime_jax.evaluation.protocols.anomaly import anomaly_metrics
from nutime_jax.evaluation.protocols.baselines import baseline_metrics
from nutime_jax.evaluation.protocols.clustering import clustering_metrics
from nutime_jax.evaluation.protocols.fewshot import fewshot_metrics
from nutime_jax.evaluation.protocols.finetune import fine_tune_task, tuned_fewshot_metrics
from nutime_jax.evaluation.protocols.point_anomaly import Scorer, encoder_scores, point_metrics, residual_scores, zscore_scores
from nutime_jax.evaluation.protocols.probes import PROBES, probe_metrics
from nutime_jax.evaluation.results import Row
from nutime_jax.loading import load_encoder, untrained_encoder
from nutime_jax.models.configuration import check_lengths, check_orders, check_shifts
from nutime_jax.models.network import NuTimeEncoder

UNTRAINED = "untrained:"
"""Before the path of an encoder: its untrained twin, drawn from the seed of its run."""

DETERMINISTIC = ("ridge", "logistic", "knn", "1nn", "raw_1nn", "raw_1nn_dtw")
"""Protocols and baselines that draw nothing: further seeds would repeat the same number."""

MONITORING = "monitoring"

WATCHES: dict[str, Scorer] = {"residual": residual_scores, "zscore": zscore_scores}
"""What the encoders have to beat on monitored series."""


@dataclass(frozen=True)
class Contender:
    """An encoder in a sweep. Several of one name are repetitions, told apart by their number."""

    name: str
    number: int
    encoder: Encoder
    digest: str


class Inputs:
    """A set as one encoder sees it; features are computed when a cell first asks for them."""

    def __init__(self, task: Task, encoder: Encoder, cache: Path):
        self.task, self.encoder, self._cache = task, encoder, cache
        self._layers: dict[tuple[int, int, int], tuple[np.ndarray, ...]] = {}

    def splits(self, readout: Readout) -> tuple[Split, Split]:
        """Features of the training and of the test cases."""
        cases, shifts = (self.task.train, self.task.test), readout.shifts or self.encoder.shifts
        orders, lengths = readout.orders or self.encoder.orders, readout.lengths or self.encoder.lengths
        wanted = [(order, length, shifts) for order in orders for length in lengths]
        for order, length, shifts in wanted:
            if (order, length, shifts) not in self._layers:
                encoder = self.encoder.at(length, shifts=shifts, orders=(order,))
                self._layers[order, length, shifts] = tuple(layer_features(encoder, one, cache=self._cache) for one in cases)
        layers = zip(*(self._layers[one] for one in wanted), strict=True)
        train, test = (Split(read_features(one, readout), split.labels) for one, split in zip(layers, cases, strict=True))
        return train, test


@dataclass(frozen=True)
class Job:
    """A protocol with a setting.

    run: (inputs, seed) -> metrics.
    selection: see `results.Row`.
    """

    protocol: str
    setting: str
    run: Callable[[Inputs, int], dict[str, float]]
    selection: str = "train"


def find_contenders(entries: Sequence[str]) -> list[Contender]:
    """The encoders of a sweep, from entries "name=path" or "name=untrained:path"; a name may be repeated.

    Raises:
        InputError: an entry of another form, or a path without an encoder.
    """
    found: list[Contender] = []
    for entry in entries:
        name, equals, where = entry.partition("=")
        if not (name and equals and where):
            raise InputError(f"encoder {entry!r} has no name; write name={entry}, or name={UNTRAINED}{entry} for its untrained twin")
        loaded = load_encoder(where.removeprefix(UNTRAINED))
        encoder = untrained_encoder(loaded.config, trained=loaded) if where.startswith(UNTRAINED) else loaded
        number = sum(one.name == name for one in found)
        found.append(Contender(name, number, encoder, encoder_digest(encoder)))
    return found


def make_jobs(config: SweepConfig, network: NuTimeEncoder) -> list[Job]:
    """Every protocol of a sweep with every setting, for encoders of such a network.

    Raises:
        InputError: an unknown protocol, layer, length or setting.
    """
    readouts = _readouts(config, network)
    jobs: list[Job] = []
    for protocol in config.protocols:
        if protocol in PROBES:
            jobs += [_probe(protocol, readout, scaler) for readout in readouts for scaler in config.scalers]
        elif protocol == "fewshot":
            jobs += [_fewshot(readout, shots, config.tasks) for readout in readouts for shots in config.shots]
        elif protocol in ("clustering", "anomaly"):
            jobs += [_unlabelled(protocol, readout) for readout in readouts]
        elif protocol == "finetune":
            jobs.append(_fine_tuning(config.finetune))
        elif protocol == "fewshot_finetune":
            settings = config.finetune
            jobs += [_tuned_fewshot(settings, shots, config.tuned_tasks) for shots in config.shots]
        else:
            known = ", ".join((*PROBES, "fewshot", "fewshot_finetune", "clustering", "anomaly", "finetune"))
            raise InputError(f"protocol {protocol!r} is unknown; choose of {known}")
    return jobs


def _readouts(config: SweepConfig, network: NuTimeEncoder) -> list[Readout]:
    shifts = [0 if one == "own" else check_shifts(int(one) if str(one).isdecimal() else one, network) for one in config.shifts]
    orders = [() if one == "own" else check_orders(one.split("+")) for one in config.orders]
    lengths = [() if one == "own" else check_lengths(one.split("+"), network) for one in config.lengths]
    choices = itertools.product(_layers(config.layers, network.config.depth), config.readouts, config.channels, lengths, shifts, orders)
    # What reads every layer is there once.
    return list(dict.fromkeys(Readout(None if tokens == "all" else layer, tokens, *rest) for layer, tokens, *rest in choices))


def _layers(names: Sequence[str], depth: int) -> list[int | None]:
    if tuple(names) == ("all",):
        return [*range(depth + 1), None]
    wrong = [name for name in names if name != "last" and not (name.isdecimal() and int(name) <= depth)]
    if wrong:
        raise InputError(f"layer {wrong[0]!r} does not exist; choose all, last, or 0 to {depth}")
    return [None if name == "last" else int(name) for name in names]


def _probe(name: str, readout: Readout, scaler: str) -> Job:
    def run(inputs: Inputs, seed: int) -> dict[str, float]:
        return probe_metrics(name, *inputs.splits(readout), scaler=scaler)

    return Job(name, f"{readout} scaler={scaler}", run)


def _fewshot(readout: Readout, shots: int, tasks: int) -> Job:
    def run(inputs: Inputs, seed: int) -> dict[str, float]:
        return fewshot_metrics(*inputs.splits(readout), shots=shots, tasks=tasks, seed=seed)

    return Job("fewshot", f"{readout} shots={shots} tasks={tasks}", run)


def _unlabelled(protocol: str, readout: Readout) -> Job:
    def run(inputs: Inputs, seed: int) -> dict[str, float]:
        train, test = inputs.splits(readout)
        return anomaly_metrics(train, test) if protocol == "anomaly" else clustering_metrics(test, seed=seed)

    return Job(protocol, str(readout), run)


def _fine_tuning(settings: TuningSettings) -> Job:
    def run(inputs: Inputs, seed: int) -> dict[str, float]:
        tuned = fine_tune_task(inputs.encoder, inputs.task, settings=settings, seed=seed)
        return {row.metric: row.value for row in tuned.rows}

    return Job("finetune", settings.words(), run, "test" if settings.selection == "published" else "train")


def _tuned_fewshot(settings: TuningSettings, shots: int, tasks: int) -> Job:
    def run(inputs: Inputs, seed: int) -> dict[str, float]:
        return tuned_fewshot_metrics(inputs.encoder, inputs.task, shots=shots, tasks=tasks, settings=settings, seed=seed)

    return Job("fewshot", f"finetune {settings.words()} shots={shots} tasks={tasks}", run)


class Work(NamedTuple):
    """A cell, what computes it, and how many cases (or points) it is about."""

    cell: Cell
    selection: str
    compute: Callable[[], dict[str, float]]
    train_cases: int
    test_cases: int


class Unit(NamedTuple):
    """A set, or a monitored series: opened, it gives its work."""

    name: str
    cells: int
    open: Callable[[], Iterator[Work]]


class Progress(NamedTuple):
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
        monitored: the series whose points are to be watched.
        folder: where cells and features are kept; several processes may share it.
        shard, shards: this process and their number: each takes its own sets and series.
    """

    def __init__(
        self,
        config: SweepConfig,
        sets: Sequence[SetFiles],
        folder: Path,
        *,
        monitored: Sequence[Monitored] = (),
        shard: int = 0,
        shards: int = 1,
    ):
        self._config = config
        self._store, self._cache = CellStore(folder), folder / "features"
        self._contenders = find_contenders(config.encoders)
        self._jobs = {one.name: make_jobs(config, one.encoder.network) for one in self._contenders}
        units = [Unit(one.name, self._cells_of_a_set(), partial(self._set_work, one)) for one in sets]
        watches = len(self._contenders) + len(WATCHES)
        units += [Unit(one.name, watches, partial(self._series_work, one)) for one in monitored]
        self._units = units[shard::shards]
        self.rows: list[Row] = []
        self.failures: list[Failure] = []

    def run(self) -> Iterator[Progress]:
        """Computes the cells; after each, says where it is. Rows and failures are then in `rows` and `failures`."""
        done, total = 0, sum(unit.cells for unit in self._units)
        for unit in self._units:
            try:
                work = unit.open()
            except InputError as error:
                self.failures.append(Failure("all", unit.name, "", "", str(error)))
                done += unit.cells
                yield Progress(unit.name, "", done, total)
                continue
            for one in work:
                self._settle(one)
                done += 1
                yield Progress(unit.name, one.cell.method, done, total)

    def _cells_of_a_set(self) -> int:
        seeds = [len(self._seeds(job.protocol)) for one in self._contenders for job in self._jobs[one.name]]
        return sum(seeds) + sum(len(self._seeds(name)) for name in self._config.baselines)

    def _seeds(self, protocol: str) -> tuple[int, ...]:
        return tuple(self._config.seeds)[:1] if protocol in DETERMINISTIC else tuple(self._config.seeds)

    def _set_work(self, files: SetFiles) -> Iterator[Work]:
        task = read_task(files)
        content = cases_digest(task.train) + cases_digest(task.test)
        sizes = {"train_cases": len(task.train.labels), "test_cases": len(task.test.labels)}
        encoded = [self._encoder_work(one, Inputs(task, one.encoder, self._cache), content, sizes) for one in self._contenders]
        return chain(*encoded, *(self._baseline_work(name, task, content, sizes) for name in self._config.baselines))

    def _encoder_work(self, one: Contender, inputs: Inputs, content: str, sizes: dict[str, int]) -> Iterator[Work]:
        for job in self._jobs[one.name]:
            seeds = self._seeds(job.protocol)
            for place, seed in enumerate(seeds):
                # Repetitions of an encoder, and of a protocol that draws, are numbered through.
                number = one.number * len(seeds) + place
                cell = Cell(one.name, inputs.task.name, job.protocol, job.setting, number, f"{one.digest}{content}{seed}")
                yield Work(cell, job.selection, partial(job.run, inputs, seed), **sizes)

    def _baseline_work(self, name: str, task: Task, content: str, sizes: dict[str, int]) -> Iterator[Work]:
        for seed in self._seeds(name):
            cell = Cell(name, task.name, "baseline", "", seed, f"{content}{seed}")
            yield Work(cell, "train", partial(baseline_metrics, name, task.train, task.test, seed=seed), **sizes)

    def _series_work(self, series: Monitored) -> Iterator[Work]:
        halves = {half: getattr(series, half) for half in ("train", "test")}
        content = digest([part.tobytes() for half in halves.values() for part in (half.values, half.labels)])
        sizes = {f"{name}_cases": len(half.values) for name, half in halves.items()}
        setting = f"window={self._config.window} stride={self._config.stride}"
        for one in self._contenders:
            scorer = partial(encoder_scores, encoder=one.encoder, window=self._config.window, stride=self._config.stride)
            cell = Cell(one.name, series.name, MONITORING, setting, one.number, one.digest + content)
            yield Work(cell, "train", partial(_watch, series, scorer), **sizes)
        for name, scorer in WATCHES.items():
            yield Work(Cell(name, series.name, MONITORING, "", 0, content), "train", partial(_watch, series, scorer), **sizes)

    def _settle(self, work: Work) -> None:
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


def _watch(series: Monitored, scorer: Scorer) -> dict[str, float]:
    return point_metrics(scorer(series), series)
