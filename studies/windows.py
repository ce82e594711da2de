"""Window sizes: accuracy on datasets grouped by the length, the periodicity and the period of their series.

    python -m studies.windows --out=results/windows
    python -m studies.windows --out=results/windows --config.selected=8,mixed --config.seeds=0

Properties of a dataset are medians over its training series. The period is at the highest peak of the autocorrelation beyond
its first negative value; the periodicity is the height of that peak.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.signal import correlate, detrend, find_peaks

from nutime_jax.config import PretrainConfig
from nutime_jax.data.datasets import Cases, DatasetFiles, find_all_datasets
from nutime_jax.options import option
from studies.charts import Panel, plot_panels
from studies.command import run_command
from studies.report import StudyReport, StudyTable, seed_stats
from studies.scores import Scores, dataset_table, train_and_score
from studies.variants import VariantsConfig, make_variants

PROPERTIES = {"length": "time points", "periodicity": "autocorrelation at the period", "period": "% of the series"}
"""Properties that datasets are grouped by -> unit."""
MAX_CASES = 200
"""Training cases that are described, evenly spaced: enough for a median."""


@dataclass(frozen=True)
class WindowsConfig(VariantsConfig):
    """Configuration of studies/windows.py."""

    groups: int = option(3, "Number of groups of datasets, by length, by periodicity and by period.", low=1)


def study_windows(config: WindowsConfig, base: PretrainConfig, out: Path) -> StudyReport:
    """Train every variant with every seed and compare accuracies on groups of similar datasets.

    Args:
        config: see docs/configuration.md.
        base: the configuration that the variants change.
        out: folder of runs and results.

    Raises:
        InputError: the configuration is not valid, or no run has results.
    """
    datasets = find_all_datasets(config.probe.sources)
    scores = train_and_score(make_variants(config, base), datasets, config, out)
    properties = {files.name: describe_dataset(files) for files in datasets if files.name in scores.datasets}
    groups = {name: group_datasets({dataset: found[name] for dataset, found in properties.items()}, config.groups) for name in PROPERTIES}
    table = compare_groups(scores, groups)
    tables = {"table": table, "datasets": dataset_table(scores, properties)}
    return StudyReport(tables, partial(_draw, scores, groups), notes=scores.notes)


def describe_dataset(files: DatasetFiles) -> dict[str, float]:
    """Return medians over the training series: length, periodicity and period (see `periodicity`)."""
    cases: Cases = files.read("train")
    indices = np.unique(np.linspace(0, len(cases.series) - 1, min(MAX_CASES, len(cases.series))).astype(int))
    channels = [channel for index in indices for channel in cases.series[index]]
    values = np.array([(len(channel), *periodicity(channel)) for channel in channels])
    return dict(zip(PROPERTIES, np.median(values, axis=0).tolist(), strict=True))


def periodicity(series: np.ndarray) -> tuple[float, float]:
    """Return the periodicity of a series, from 0 to 1, and its period in percent of the length; (0, 100) without a period.

    The periodicity is the highest peak of the autocorrelation of the detrended series, between its first negative lag and half
    of the length. Each lag is divided by its number of terms, so that a perfect wave has periodicity 1 at any period.
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


def group_datasets(values: Mapping[str, float], groups: int) -> dict[str, tuple[str, ...]]:
    """Return "lowest–highest" of a group -> its datasets, in ascending order.

    Groups are as equal in size as possible; datasets of equal value are in one group.
    """
    ordered = sorted(values, key=lambda name: values[name])
    numbers = np.array([values[name] for name in ordered])
    # Datasets of equal value go to the group of the first of them.
    owners = np.searchsorted(numbers, numbers, side="left") * groups // len(numbers)
    found = [[name for name, owner in zip(ordered, owners, strict=True) if owner == group] for group in range(groups)]
    return {_format_range(values[names[0]], values[names[-1]]): tuple(names) for names in found if names}


def _format_range(low: float, high: float) -> str:
    texts = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in (low, high)]
    return "–".join(dict.fromkeys(texts))


def compare_groups(scores: Scores, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> StudyTable:
    """Return one line per group of datasets and one column per variant: mean accuracy over the group."""
    lines = [("all", "", len(scores.datasets), *(seed_stats(scores.mean(variant)) for variant in scores.baseline))]
    for name, labels in groups.items():
        for label, datasets in labels.items():
            lines.append((name, label, len(datasets), *(seed_stats(scores.mean(variant, datasets)) for variant in scores.baseline)))
    units = ", ".join(f"{name} ({unit})" for name, unit in PROPERTIES.items())
    title = f"Accuracy in % of each variant on datasets grouped by {units}"
    return StudyTable(title, ("by", "range", "datasets", *scores.baseline), tuple(lines))


def _draw(scores: Scores, groups: Mapping[str, Mapping[str, Sequence[str]]]):
    lines = {variant: [seed_stats(scores.mean(variant))] for variant in scores.baseline}
    panels = [Panel("all datasets", "", "accuracy in %", ["all"], lines)]
    for name, labels in groups.items():
        lines = {variant: [seed_stats(scores.mean(variant, datasets)) for datasets in labels.values()] for variant in scores.baseline}
        panels.append(Panel(f"by {name}", PROPERTIES[name], "accuracy in %", list(labels), lines))
    return plot_panels(panels)


if __name__ == "__main__":
    sys.exit(run_command(study_windows, WindowsConfig, name="windows", doc=__doc__))
