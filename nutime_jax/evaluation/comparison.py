"""Comparison of encoders on labelled datasets: accuracies on test splits or over folds, and differences with standard errors."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from nutime_jax.data.datasets import Cases
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import stratified_folds
from nutime_jax.evaluation.features import FeatureSet, FeatureSpec, Task, encode_cases
from nutime_jax.evaluation.protocols.baselines import baseline_predictions
from nutime_jax.evaluation.protocols.probes import predict_with_probe
from nutime_jax.evaluation.results import Result, class_metrics

RAW = "raw_1nn"
"""Baseline on the raw series."""
PROBES = ("kernel", "1nn")
"""Probes of frozen features; differences are those of the first."""


class CaseSplit(NamedTuple):
    """Training and test cases of one split, as indices of the cases of a dataset; `split` as in `Result`."""

    split: str
    train: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Results of all methods on one dataset.

    rows: one per method, probe, split and metric.
    correct: method -> whether each test case is labelled correctly, by the first probe; over folds, all cases of the dataset.
    """

    dataset: str
    rows: list[Result]
    correct: dict[str, np.ndarray]


class Difference(NamedTuple):
    """Difference of mean accuracies of two methods, as a fraction, with its standard errors.

    over_cases: of the cases of these datasets. over_datasets: of datasets like these; NaN for a single one.
    """

    mean: float
    over_cases: float
    over_datasets: float
    cases: int
    datasets: int


def compare(
    encoders: Mapping[str, Encoder],
    task: Task,
    *,
    spec: FeatureSpec | None = None,
    folds: int = 0,
    sources: Mapping[str, str] | None = None,
) -> Comparison:
    """Score kernel ridge and 1-NN probes on the features of every encoder, and 1-NN on the raw series.

    Args:
        encoders: name of the method -> encoder.
        task: a labelled dataset. Without folds its test split is scored.
        spec: features; None for those of each encoder.
        folds: number of stratified folds of the training cases that are scored instead of the test split; 0 is none.
        sources: name -> text of `Result.encoder`.

    Raises:
        InputError: the features are not one vector per case, or folds are too many for the classes.
    """
    cases, parts = _split(task, folds)
    rows: list[Result] = []
    correct: dict[str, np.ndarray] = {}
    labels = np.concatenate([split.labels for split in cases])
    for method, encoder in encoders.items():
        if folds and encoder.config.evaluation.normalise == "dataset":
            raise InputError("normalise is 'dataset', whose statistics would include the cases of the scored fold; remove folds")
        encoder = encoder.fit_normalisation(task.train.series)
        chosen = (spec or FeatureSpec()).of(encoder)
        features = np.concatenate([encode_cases(encoder, split, **chosen.options).features for split in cases])
        about = {"method": method, "setting": f"{chosen} scaler=standard", "encoder": (sources or {}).get(method, "")}
        for probe in PROBES:
            predict = partial(_predict, probe, FeatureSet(features, labels))
            added, right = _score(task.name, predict, labels, parts, protocol=probe, **about)
            rows += added
            correct.setdefault(method, right)
    joined = Cases([case for split in cases for case in split.series], labels)
    added, correct[RAW] = _score(
        task.name,
        lambda part: baseline_predictions(RAW, _take(joined, part.train), _take(joined, part.test), seed=0),
        labels,
        parts,
        method=RAW,
        protocol="baseline",
        setting="",
    )
    return Comparison(task.name, rows + added, correct)


def _split(task: Task, folds: int) -> tuple[list[Cases], list[CaseSplit]]:
    """Return the cases, and the splits of their concatenation."""
    count = len(task.train.series)
    if not folds:
        return [task.train, task.test], [CaseSplit("default", np.arange(count), count + np.arange(len(task.test.series)))]
    names, codes, sizes = np.unique(task.train.labels, return_inverse=True, return_counts=True)
    if len(names) == 2 and sizes.min() == 1:
        alone = names[sizes.argmin()]
        raise InputError(f"class {str(alone)!r} of {task.name} has 1 case, and each of two classes needs 2 for folds; add cases")
    if not 2 <= folds <= sizes.max():
        raise InputError(f"folds is {folds}, and the largest class of {task.name} has {sizes.max()} cases; choose 2 to {sizes.max()} folds")
    fold_of = stratified_folds(codes, folds=folds)
    return [task.train], [CaseSplit(f"resample {i}", np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(folds)]


def _score(
    dataset: str, predict: Callable[[CaseSplit], np.ndarray], labels: np.ndarray, parts: Sequence[CaseSplit], **about: str
) -> tuple[list[Result], np.ndarray]:
    """Return the results of one method, and whether each test case is correct."""
    rows, correct = [], []
    for part in parts:
        started = time.perf_counter()
        predicted, expected = predict(part), labels[part.test]
        shared = {"seconds": time.perf_counter() - started, "train_cases": len(part.train), "test_cases": len(part.test)}
        shared |= {"dataset": dataset, "seed": 0, "split": part.split, **about}
        rows += [Result(metric=name, value=value, **shared) for name, value in class_metrics(expected, predicted).items()]
        correct.append(predicted == expected)
    return rows, np.concatenate(correct)


def _predict(probe: str, cases: FeatureSet, part: CaseSplit) -> np.ndarray:
    """Return the labels that a probe of the training cases predicts for the test cases."""
    train = FeatureSet(cases.features[part.train], cases.labels[part.train])
    return predict_with_probe(probe, train, cases.features[part.test])[0]


def _take(cases: Cases, indices: np.ndarray) -> Cases:
    return Cases([cases.series[i] for i in indices], cases.labels[indices])


def difference(comparisons: Sequence[Comparison], method: str, reference: str) -> Difference:
    """Return the difference of mean accuracies of two methods over datasets. Cases are paired: both methods label the same."""
    gaps = [c.correct[method].astype(float) - c.correct[reference] for c in comparisons]
    means = np.array([gap.mean() for gap in gaps])
    variances = [gap.var(ddof=1) / len(gap) if len(gap) > 1 else np.nan for gap in gaps]
    count = len(gaps)
    return Difference(
        mean=float(means.mean()),
        over_cases=float(np.sqrt(np.sum(variances)) / count),
        over_datasets=float(means.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan"),
        cases=sum(map(len, gaps)),
        datasets=count,
    )


def format_difference(found: Difference, method: str, reference: str) -> str:
    """Return one line with a difference and its standard errors, in percentage points."""
    errors = f"{100 * found.over_cases:.1f} over {found.cases:,} test cases"
    if found.datasets > 1:
        errors += f", {100 * found.over_datasets:.1f} over {found.datasets} datasets"
    return f"{method} - {reference}: {100 * found.mean:+.1f} percentage points (standard error {errors})"


def format_accuracies(comparisons: Sequence[Comparison], headings: Mapping[str, str]) -> str:
    """Return a text table of accuracies in percent: one line per dataset, and their mean.

    Args:
        headings: method -> heading.
    """
    values = np.array([[100 * c.correct[method].mean() for method in headings] for c in comparisons])
    lines = [["dataset", *headings.values()]]
    lines += [[c.dataset, *map("{:.1f}".format, row)] for c, row in zip(comparisons, values, strict=True)]
    lines += [[f"mean of {len(comparisons)}", *map("{:.1f}".format, values.mean(0))]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *rows, last = (
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in lines
    )
    rule = "-" * len(head)
    return "\n".join([head, rule, *rows, rule, last])
