"""Accuracy of the runs of a study and of their untrained twins on sets, by the sweep: its cells are not computed again."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nutime_jax.config import SweepConfig
from nutime_jax.data.datasets import DatasetFiles
from nutime_jax.errors import InputError
from nutime_jax.evaluation.protocols.probes import PROBES
from nutime_jax.evaluation.results import Row, write_rows
from nutime_jax.evaluation.sweep import UNTRAINED, Sweep
from nutime_jax.studies.configuration import ProbeConfig
from nutime_jax.studies.findings import Table, spread
from nutime_jax.studies.variants import Run, twins


@dataclass(frozen=True)
class Scores:
    """Accuracies in percent, on the sets of which every method has a number for every run.

    values: method -> set -> one number a seed; methods are variants and untrained twins.
    seeds: method -> its seeds, in that order; one is missing where a run diverged.
    twin: variant -> the method that is its untrained twin.
    left_out: a sentence about every set that is not among them.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    seeds: Mapping[str, tuple[int, ...]]
    twin: Mapping[str, str]
    left_out: tuple[str, ...]

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets, in the order in which they were given."""
        return tuple(next(iter(self.values.values())))

    def mean(self, method: str, sets: Iterable[str] | None = None) -> np.ndarray:
        """Mean over sets (None is all of them), one number a seed."""
        return np.mean([self.values[method][name] for name in (self.sets if sets is None else sets)], axis=0)

    def gain(self, method: str, over: str, sets: Iterable[str] | None = None) -> np.ndarray:
        """How far a method is above another in the mean over sets, one number a seed that both have."""
        sets = self.sets if sets is None else tuple(sets)
        ours, theirs = (dict(zip(self.seeds[one], self.mean(one, sets), strict=True)) for one in (method, over))
        return np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def check_probe(probe: ProbeConfig) -> None:
    """Raises InputError unless the protocol of a study is a probe."""
    if probe.protocol not in PROBES:
        raise InputError(f"probe.protocol is {probe.protocol!r}; choose one of {', '.join(PROBES)}")


def score_runs(runs: Sequence[Run], sets: Sequence[DatasetFiles], probe: ProbeConfig, out: Path) -> Scores:
    """Probes every run and its untrained twin on every set; `<out>/results.csv` has the rows, as `nutime report` reads them.

    Args:
        probe: a single setting of a sweep.

    Raises:
        InputError: the probe will not do, or there is no set of which every run has a number.
    """
    check_probe(probe)
    names = twins(runs)
    # One twin a seed: those of variants of the same model are the same encoder.
    untrained: dict[tuple[str, int], Path] = {}
    for run in runs:
        untrained.setdefault((names[run.variant], run.seed), run.workdir)
    entries = [(run.variant, run.seed, f"{run.workdir}") for run in runs]
    entries += [(name, seed, f"{UNTRAINED}{workdir}") for (name, seed), workdir in untrained.items()]
    sweep = Sweep(_grid(probe, [f"{name}={where}" for name, _, where in entries]), sets, out / "sweep")
    _fill(sweep, out / "sweep" / "features")
    write_rows(sweep.rows, out / "results.csv")
    seeds: dict[str, list[int]] = defaultdict(list)
    for name, seed, _ in entries:
        seeds[name].append(seed)
    reasons = {one.dataset: one.message for one in sweep.failures}
    values, left_out = _gather(sweep.rows, [one.name for one in sets], seeds=seeds, reasons=reasons)
    return Scores(values, {name: tuple(found) for name, found in seeds.items()}, names, left_out)


def _grid(probe: ProbeConfig, encoders: Sequence[str]) -> SweepConfig:
    """The sweep of a single probe of frozen features."""
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


def _fill(sweep: Sweep, features: Path) -> None:
    """Computes what is missing. Features of a set are of no use after it, and would fill the disk."""
    last = None
    with tqdm(desc="probing", unit=" cells") as bar:
        for at in sweep.run():
            if last not in (None, at.dataset):
                shutil.rmtree(features, ignore_errors=True)
            last, bar.total = at.dataset, at.total
            bar.set_postfix_str(f"{at.dataset} {at.method}", refresh=False)
            bar.update(at.done - bar.n)
    shutil.rmtree(features, ignore_errors=True)


def _gather(
    rows: Iterable[Row], sets: Sequence[str], *, seeds: Mapping[str, Sequence[int]], reasons: Mapping[str, str]
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """Accuracies by method and set, of the sets of which every run has one; and what is to be said of the others."""
    found = {(row.dataset, row.method, row.seed): 100 * row.value for row in rows if row.metric == "accuracy"}
    # The sweep numbers the encoders of one name through, in the order in which they were given.
    places = [(method, number) for method, each in seeds.items() for number in range(len(each))]
    whole = [name for name in sets if all((name, *place) in found for place in places)]
    left_out = tuple(f"{name} is left out: {reasons.get(name, 'a run has no number of it')}" for name in sets if name not in whole)
    if not whole:
        raise InputError(f"there is no set of which every run has a number; the first reason: {left_out[0]}")
    values = {
        method: {name: np.array([found[name, method, number] for number in range(len(each))]) for name in whole}
        for method, each in seeds.items()
    }
    return values, left_out


def set_table(scores: Scores, about: Mapping[str, Mapping[str, object]] | None = None) -> Table:
    """A line a set: what is known about it, and the accuracy of every method.

    Args:
        about: set -> column -> value; every set has the same columns.
    """
    about = about or {name: {} for name in scores.sets}
    extra = tuple(about[scores.sets[0]])
    lines = [(name, *about[name].values(), *(spread(found[name]) for found in scores.values.values())) for name in scores.sets]
    return Table("Accuracy in % on every set", ("set", *extra, *scores.values), tuple(lines))
