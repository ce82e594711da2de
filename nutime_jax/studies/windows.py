"""Windows: which length of a window serves which series."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.signal import correlate, detrend, find_peaks

from nutime_jax.config import PretrainConfig
from nutime_jax.data.datasets import Cases, DatasetFiles, find_all_datasets
from nutime_jax.report.charts import Panel, draw_panels
from nutime_jax.studies.configuration import WindowsConfig
from nutime_jax.studies.findings import Findings, Table, spread
from nutime_jax.studies.scores import Scores, check_probe, score_runs, set_table
from nutime_jax.studies.variants import make_variants, plan_runs, train_runs

PROPERTIES = {"length": "points", "periodicity": "autocorrelation at the period", "period": "% of the series"}
"""What sets are grouped by, and its unit."""
MOST_CASES = 200
"""Cases of a train split that are looked at, spread evenly over it: a median needs no more."""


def study_windows(config: WindowsConfig, base: PretrainConfig, out: Path) -> Findings:
    """Trains every variant at every seed, and compares their accuracies on sets of like length, and of like periodicity.

    Args:
        config: see docs/configuration.md.
        base: the configuration that the variants change.
        out: where runs and results are kept.

    Raises:
        InputError: the configuration will not do, or nothing came of it.
    """
    check_probe(config.probe)
    variants, sets = make_variants(config, base), find_all_datasets(config.probe.sources)
    training = train_runs(plan_runs(variants, config.seeds, out))
    scores = score_runs(training.finished, sets, config.probe, out)
    about = {one.name: describe_set(one) for one in sets if one.name in scores.sets}
    groups = {name: group_sets({one: about[one][name] for one in about}, config.groups) for name in PROPERTIES}
    table = compare_groups(scores, groups)
    return Findings(
        {"table": table, "sets": set_table(scores, about)},
        partial(_draw, scores, groups),
        notes=(*scores.left_out, *training.failures),
    )


def describe_set(files: DatasetFiles) -> dict[str, float]:
    """Medians over the training series of a set: their length, and their periodicity and period, see `periodicity`."""
    cases: Cases = files.read("train")
    places = np.unique(np.linspace(0, len(cases.series) - 1, min(MOST_CASES, len(cases.series))).astype(int))
    channels = [channel for place in places for channel in cases.series[place]]
    found = np.array([(len(one), *periodicity(one)) for one in channels])
    return dict(zip(PROPERTIES, np.median(found, axis=0).tolist(), strict=True))


def periodicity(series: np.ndarray) -> tuple[float, float]:
    """How periodic a series is, from 0 to 1, and its period in percent of its length; (0, 100) where there is none.

    The highest peak of the autocorrelation of the series less its straight line, after the first lag at which it is negative and up to
    half of the length. Each lag is divided by the number of points that it has, so that a perfect wave is 1 at any period.
    """
    values = detrend(np.asarray(series, np.float64))
    size, none = len(values), (0.0, 100.0)
    power = float(values @ values)
    if size < 4 or power <= 1e-12 * float(np.square(series, dtype=np.float64).sum()):
        return none
    lags = np.arange(size // 2 + 1)
    curve = correlate(values, values, method="fft")[size - 1 :][lags] * size / (power * (size - lags))
    negative = np.flatnonzero(curve < 0)
    if not len(negative):
        return none
    peaks = find_peaks(curve)[0]
    peaks = peaks[peaks > negative[0]]
    if not len(peaks):
        return none
    best = peaks[curve[peaks].argmax()]
    return float(np.clip(curve[best], 0, 1)), 100 * float(best) / size


def group_sets(values: Mapping[str, float], groups: int) -> dict[str, tuple[str, ...]]:
    """Sets in groups of like value, as equal in number as can be, from the lowest to the highest; sets of one value stay together.

    Returns:
        "lowest–highest" of a group -> its sets.
    """
    ordered = sorted(values, key=lambda name: values[name])
    numbers = np.array([values[name] for name in ordered])
    # A set goes where the first of its value goes.
    owners = np.searchsorted(numbers, numbers, side="left") * groups // len(numbers)
    found = [[name for name, owner in zip(ordered, owners, strict=True) if owner == group] for group in range(groups)]
    return {_range(values[some[0]], values[some[-1]]): tuple(some) for some in found if some}


def _range(low: float, high: float) -> str:
    texts = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in (low, high)]
    return "–".join(dict.fromkeys(texts))


def compare_groups(scores: Scores, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> Table:
    """A line a group of sets, a column a variant: mean accuracy over the group."""
    lines = [("all", "", len(scores.sets), *(spread(scores.mean(variant)) for variant in scores.twin))]
    for name, some in groups.items():
        lines += [
            (name, label, len(sets), *(spread(scores.mean(variant, sets)) for variant in scores.twin)) for label, sets in some.items()
        ]
    units = ", ".join(f"{name} ({unit})" for name, unit in PROPERTIES.items())
    return Table(f"Accuracy in % of each variant on sets grouped by {units}", ("by", "range", "sets", *scores.twin), tuple(lines))


def _draw(scores: Scores, groups: Mapping[str, Mapping[str, Sequence[str]]]):
    panels = [Panel("all sets", "", "accuracy in %", ["all"], {one: [spread(scores.mean(one))] for one in scores.twin})]
    for name, some in groups.items():
        lines = {one: [spread(scores.mean(one, sets)) for sets in some.values()] for one in scores.twin}
        panels.append(Panel(f"by {name}", PROPERTIES[name], "accuracy in %", list(some), lines))
    return draw_panels(panels)
