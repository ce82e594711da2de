"""Runs of a study, and their accuracy and that of their untrained baselines, by a resumable sweep."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nutime_jax.config import SweepConfig
from nutime_jax.data.datasets import DatasetFiles
from nutime_jax.errors import InputError
from nutime_jax.evaluation.encoders import UNTRAINED
from nutime_jax.evaluation.results import Result, write_rows
from nutime_jax.evaluation.sweep import Sweep
from nutime_jax.progress import ProgressBar
from studies.report import StudyTable, seed_stats
from studies.variants import ProbeConfig, Run, StudyConfig, Variant, plan_runs, train_runs, untrained_names


@dataclass(frozen=True)
class Scores:
    """Accuracies in percent on the datasets for which every run of every method has a result.

    values: method -> dataset -> accuracies, one per seed. Methods are variants and untrained baselines.
    seeds: method -> seeds, in the order of the values, without those of diverged runs.
    baseline: variant -> method that is its untrained baseline.
    notes: one sentence per dataset without all results, and one per diverged run.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    seeds: Mapping[str, tuple[int, ...]]
    baseline: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets, in input order."""
        return tuple(next(iter(self.values.values())))

    def mean(self, method: str, datasets: Iterable[str] | None = None) -> np.ndarray:
        """Return the mean over datasets (None: all), one value per seed."""
        return np.mean([self.values[method][name] for name in (self.datasets if datasets is None else datasets)], axis=0)

    def gain(self, method: str, reference: str, datasets: Iterable[str] | None = None) -> np.ndarray:
        """Return the difference of the means of two methods in percentage points, one value per common seed."""
        datasets = self.datasets if datasets is None else tuple(datasets)
        ours, theirs = (dict(zip(self.seeds[name], self.mean(name, datasets), strict=True)) for name in (method, reference))
        return np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def train_and_score(variants: Sequence[Variant], datasets: Sequence[DatasetFiles], config: StudyConfig, out: Path) -> Scores:
    """Train every variant with every seed, and probe every run and its untrained baseline on every dataset.

    Raises:
        InputError: a workdir belongs to another run, all runs diverged, or no dataset has the results of all runs.
    """
    runs = train_runs(plan_runs(variants, config.seeds, out))
    scores = score_runs(runs.finished, datasets, config.probe, out)
    return replace(scores, notes=(*scores.notes, *runs.failures))


def score_runs(runs: Sequence[Run], datasets: Sequence[DatasetFiles], probe: ProbeConfig, out: Path) -> Scores:
    """Probe every run and its untrained baseline on every dataset. `<out>/results.csv` has the rows for `nutime report`.

    Raises:
        InputError: no dataset has the results of all runs.
    """
    names = untrained_names(runs)
    # Variants of one model have the same untrained encoder for a seed.
    untrained: dict[tuple[str, int], Path] = {}
    for run in runs:
        untrained.setdefault((names[run.variant], run.seed), run.workdir)
    entries = [(run.variant, run.seed, f"{run.workdir}") for run in runs]
    entries += [(name, seed, f"{UNTRAINED}{workdir}") for (name, seed), workdir in untrained.items()]
    sweep = Sweep(_sweep_config(probe, [f"{name}={path}" for name, _, path in entries]), datasets, out / "sweep")
    _run_sweep(sweep, out / "sweep" / "features")
    write_rows(sweep.rows, out / "results.csv")
    seeds: dict[str, list[int]] = defaultdict(list)
    for name, seed, _ in entries:
        seeds[name].append(seed)
    reasons = {failure.dataset: failure.message for failure in sweep.failures}
    values, skipped = _collect(sweep.rows, [files.name for files in datasets], seeds=seeds, reasons=reasons)
    return Scores(values, {name: tuple(found) for name, found in seeds.items()}, names, skipped)


def _sweep_config(probe: ProbeConfig, encoders: Sequence[str]) -> SweepConfig:
    return SweepConfig(
        encoders=tuple(encoders),
        baselines=(),
        protocols=(probe.protocol,),
        scalers=(probe.scaler,),
        layers=(probe.layer,),
        poolings=(probe.pooling,),
        input_lengths=(probe.length,),
        num_window_offsets=(probe.num_window_offsets,),
        diff_orders=(probe.diff_orders,),
        channels=(probe.channels,),
    )


def _run_sweep(sweep: Sweep, features: Path) -> None:
    """Compute the missing cells. The cached features of a dataset are deleted after it, since they are large."""
    last = None
    with ProgressBar(desc="probing", unit=" cells") as bar:
        for progress in sweep.run():
            if last not in (None, progress.dataset):
                shutil.rmtree(features, ignore_errors=True)
            last, bar.total = progress.dataset, progress.total
            bar.set_postfix_str(f"{progress.dataset} {progress.method}", refresh=False)
            bar.update(progress.done - bar.n)
    shutil.rmtree(features, ignore_errors=True)


def _collect(
    rows: Iterable[Result], datasets: Sequence[str], *, seeds: Mapping[str, Sequence[int]], reasons: Mapping[str, str]
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """Return accuracies by method and dataset, of the datasets with all results, and one sentence per other dataset."""
    accuracies = {(row.dataset, row.method, row.seed): 100 * row.value for row in rows if row.metric == "accuracy"}
    # The sweep numbers encoders of the same name in input order.
    runs = [(method, number) for method, each in seeds.items() for number in range(len(each))]
    complete = [name for name in datasets if all((name, *run) in accuracies for run in runs)]
    skipped = tuple(f"{name} is skipped: {reasons.get(name, 'a run has no result for it')}" for name in datasets if name not in complete)
    if not complete:
        raise InputError(f"no dataset has the results of all runs; first reason: {skipped[0]}")
    values = {
        method: {name: np.array([accuracies[name, method, number] for number in range(len(each))]) for name in complete}
        for method, each in seeds.items()
    }
    return values, skipped


def dataset_table(scores: Scores, properties: Mapping[str, Mapping[str, object]] | None = None) -> StudyTable:
    """Return one line per dataset: its properties and the accuracy of every method.

    Args:
        properties: dataset -> column -> value, with the same columns for all datasets.
    """
    properties = properties or {name: {} for name in scores.datasets}
    extra = tuple(properties[scores.datasets[0]])
    lines = [(name, *properties[name].values(), *(seed_stats(found[name]) for found in scores.values.values())) for name in scores.datasets]
    return StudyTable("Accuracy in % per dataset", ("dataset", *extra, *scores.values), tuple(lines))
