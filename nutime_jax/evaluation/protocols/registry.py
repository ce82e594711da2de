"""Registry of the protocols of a sweep. `PROTOCOLS` is open: add an entry for a protocol outside the package."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nutime_jax.config import SweepConfig
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import FeatureSet, FeatureSpec, LayerFeatures, Task, layer_features, read_features
from nutime_jax.evaluation.protocols.anomaly import anomaly_metrics
from nutime_jax.evaluation.protocols.clustering import clustering_metrics
from nutime_jax.evaluation.protocols.fewshot import fewshot_metrics
from nutime_jax.evaluation.protocols.finetune import fine_tune_task, tuned_fewshot_metrics
from nutime_jax.evaluation.protocols.probes import PROBES, probe_metrics

UNSEEDED_PROBES = ("kernel", "ridge", "logistic", "knn", "1nn")
"""Probes without randomness: other seeds would repeat the result."""


class _Splits(NamedTuple):
    """Features of every layer, for both splits."""

    train: LayerFeatures
    test: LayerFeatures


class EncodedDataset:
    """A dataset and an encoder; features are computed on first use."""

    def __init__(self, task: Task, encoder: Encoder, cache: Path):
        self.task, self.encoder, self._cache = task, encoder.fit_normalisation(task.train.series), cache
        self._layers: dict[tuple[int, int, int], _Splits] = {}

    def splits(self, spec: FeatureSpec) -> tuple[FeatureSet, FeatureSet]:
        """Return the features of the train and of the test split."""
        offsets = spec.num_window_offsets or self.encoder.num_window_offsets
        orders, lengths = spec.diff_orders or self.encoder.diff_orders, spec.input_lengths or self.encoder.input_lengths
        layers = [self._layer_features(order, length, offsets) for order in orders for length in lengths]
        train = read_features([split.train for split in layers], spec)
        test = read_features([split.test for split in layers], spec)
        return FeatureSet(train, self.task.train.labels), FeatureSet(test, self.task.test.labels)

    def _layer_features(self, order: int, length: int, num_window_offsets: int) -> _Splits:
        """Return the features of every layer, of the train and of the test split."""
        key = order, length, num_window_offsets
        if key not in self._layers:
            encoder = self.encoder.with_options(input_lengths=(length,), num_window_offsets=num_window_offsets, diff_orders=(order,))
            self._layers[key] = _Splits(
                train=layer_features(encoder, self.task.train, cache=self._cache),
                test=layer_features(encoder, self.task.test, cache=self._cache),
            )
        return self._layers[key]


@dataclass(frozen=True)
class ProtocolRun:
    """A protocol with a setting.

    compute: (dataset, seed) -> metrics.
    seeded: whether the result depends on the seed.
    selection: see `results.Result`.
    """

    protocol: str
    setting: str
    compute: Callable[[EncodedDataset, int], dict[str, float]]
    seeded: bool = True
    selection: str = "train"


PlanRuns = Callable[[str, SweepConfig, Sequence[FeatureSpec]], list[ProtocolRun]]
"""(name of the protocol, configuration, specs) -> its runs."""


def on_features(metrics: Callable[..., dict[str, float]], *, seeded: bool = False) -> PlanRuns:
    """Return a protocol with one run per spec.

    Args:
        metrics: (train, test) -> metrics, two `FeatureSet`s of features and labels; with `seed`, if it is seeded.
        seeded: whether it samples at random.
    """

    def plan(name: str, config: SweepConfig, specs: Sequence[FeatureSpec]) -> list[ProtocolRun]:
        return [ProtocolRun(name, str(spec), partial(_on_splits, metrics, spec, seeded), seeded) for spec in specs]

    return plan


def _on_splits(
    metrics: Callable[..., dict[str, float]], spec: FeatureSpec, seeded: bool, dataset: EncodedDataset, seed: int
) -> dict[str, float]:
    return metrics(*dataset.splits(spec), **({"seed": seed} if seeded else {}))


def _plan_fewshot(name: str, config: SweepConfig, specs: Sequence[FeatureSpec]) -> list[ProtocolRun]:
    runs = []
    for spec in specs:
        for shots in config.shots:
            metrics = partial(fewshot_metrics, shots=shots, tasks=config.tasks)
            setting = f"{spec} shots={shots} tasks={config.tasks}"
            runs.append(ProtocolRun(name, setting, partial(_on_splits, metrics, spec, True)))
    return runs


def _plan_finetune(name: str, config: SweepConfig, specs: Sequence[FeatureSpec]) -> list[ProtocolRun]:
    settings = config.finetune

    def compute(dataset: EncodedDataset, seed: int) -> dict[str, float]:
        fine_tuned = fine_tune_task(dataset.encoder, dataset.task, settings=settings, seed=seed, average=name == "average")
        return {row.metric: row.value for row in fine_tuned.rows}

    return [ProtocolRun(name, settings.describe(), compute, selection=settings.selection)]


def _plan_fewshot_finetune(name: str, config: SweepConfig, specs: Sequence[FeatureSpec]) -> list[ProtocolRun]:
    options = {"tasks": config.tuned_tasks, "settings": config.finetune}

    def compute(dataset: EncodedDataset, seed: int, *, shots: int) -> dict[str, float]:
        return tuned_fewshot_metrics(dataset.encoder, dataset.task, shots=shots, seed=seed, **options)

    setting = f"finetune {config.finetune.describe()}"
    return [
        ProtocolRun("fewshot", f"{setting} shots={shots} tasks={config.tuned_tasks}", partial(compute, shots=shots))
        for shots in config.shots
    ]


def _clustering(train: FeatureSet, test: FeatureSet, *, seed: int) -> dict[str, float]:
    return clustering_metrics(test, seed=seed)


PROTOCOLS: dict[str, PlanRuns] = {
    "fewshot": _plan_fewshot,
    "fewshot_finetune": _plan_fewshot_finetune,
    "clustering": on_features(_clustering, seeded=True),
    "anomaly": on_features(anomaly_metrics),
    "finetune": _plan_finetune,
    "average": _plan_finetune,
}
"""Name -> protocol. The probes of `probes.PROBES` are protocols by their own names."""


def plan_runs(config: SweepConfig, specs: Sequence[FeatureSpec]) -> list[ProtocolRun]:
    """Return the runs of all protocols of a sweep.

    Raises:
        InputError: a protocol or a scaler is unknown.
    """
    runs: list[ProtocolRun] = []
    for name in config.protocols:
        if name in PROBES:
            runs += [_plan_probe(name, spec, scaler) for spec in specs for scaler in config.scalers]
        elif name in PROTOCOLS:
            runs += PROTOCOLS[name](name, config, specs)
        else:
            raise InputError(f"protocol {name!r} is unknown; choose of {', '.join((*PROBES, *PROTOCOLS))}")
    return runs


def _plan_probe(name: str, spec: FeatureSpec, scaler: str) -> ProtocolRun:
    metrics = partial(probe_metrics, name, scaler=scaler)
    setting = f"{spec} scaler={scaler}"
    return ProtocolRun(name, setting, partial(_on_splits, metrics, spec, False), seeded=name not in UNSEEDED_PROBES)
