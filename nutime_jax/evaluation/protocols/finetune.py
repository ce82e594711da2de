"""Fine-tuning protocols: one train split, alone or averaged with a probe, or few-shot tasks, trained together as an ensemble."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.config import TuningSettings
from nutime_jax.data.datasets import Cases
from nutime_jax.encoder import Encoder
from nutime_jax.evaluation.features import Task
from nutime_jax.evaluation.protocols.fewshot import draw_tasks
from nutime_jax.evaluation.protocols.probes import fit_probe
from nutime_jax.evaluation.results import Result
from nutime_jax.finetuning.averaged import AveragedClassifier
from nutime_jax.finetuning.classifier import FineTunedClassifier
from nutime_jax.finetuning.ensemble import EpochReport
from nutime_jax.finetuning.loop import DEFAULTS, fine_tune

CHUNK = 10
"""Number of tasks that are trained in parallel; memory grows with it."""


class FineTunedTask(NamedTuple):
    """A fine-tuned classifier, and its results: on the validation cases, if any, and on the test split."""

    classifier: FineTunedClassifier | AveragedClassifier
    rows: list[Result]


def fit_average(
    encoder: Encoder,
    train: Cases,
    *,
    settings: TuningSettings = DEFAULTS,
    seed: int = 0,
    test: Cases | None = None,
    progress: Callable[[int, EpochReport], None] | None = None,
    **probe: Any,
) -> AveragedClassifier:
    """Fit a network and a probe on frozen features of the same cases, whose probabilities are averaged.

    Args:
        settings, seed, test, progress: of the network, see `fine_tune`.
        probe: of the probe, see `fit_probe`.

    Raises:
        InputError, DivergenceError: see `fit_probe` and `fine_tune`.
    """
    fitted = fit_probe(encoder, train, **probe)
    return AveragedClassifier(fine_tune(encoder, train, settings=settings, seed=seed, test=test, progress=progress), fitted)


def fine_tune_task(
    encoder: Encoder,
    task: Task,
    *,
    settings: TuningSettings = DEFAULTS,
    seed: int = 0,
    method: str = "pretrained",
    average: bool = False,
    progress: Callable[[int, EpochReport], None] | None = None,
) -> FineTunedTask:
    """Fine-tune on the train split of a dataset, then score its test split once; see `fine_tune`.

    With `average` the test accuracy is that of `fit_average`. With settings.selection "test" the results have selection "test".
    """
    test = task.test if settings.selection == "test" else None
    fit = fit_average if average else fine_tune
    classifier = fit(encoder, task.train, settings=settings, seed=seed, test=test, progress=progress)
    training = classifier.training
    fields = {
        "method": method,
        "dataset": task.name,
        "protocol": "average" if average else "finetune",
        "setting": settings.describe(),
        "seed": seed,
        "selection": training.selection,
        "train_cases": len(task.train.series),
        "test_cases": len(task.test.series),
        "seconds": training.seconds,
    }
    rows = [Result(metric="accuracy", value=classifier.accuracy(task.test.series, task.test.labels), **fields)]
    if training.accuracies and test is None:
        rows.insert(0, Result(metric="validation_accuracy", value=training.accuracy, **fields))
    return FineTunedTask(classifier, rows)


def tuned_fewshot_metrics(
    encoder: Encoder, task: Task, *, shots: int = 5, tasks: int = 10, settings: TuningSettings = DEFAULTS, seed: int = 0
) -> dict[str, float]:
    """Return the test accuracy of classifiers fine-tuned on `shots` training cases per class.

    No case is left for validation: all epochs run, with the middle learning rate.

    Args:
        shots, tasks, seed: as in `fewshot_metrics`, with the same samples.

    Returns:
        "accuracy", "std" and "stderr" over tasks, as `fewshot_metrics`.

    Raises:
        InputError: a class has fewer training cases than shots.
    """
    places = draw_tasks(task.train.labels, shots=shots, tasks=tasks, seed=seed).reshape(tasks, -1)
    accuracies = []
    for first in range(0, tasks, CHUNK):
        chunk = places[first : first + CHUNK]
        ensemble = dataclasses.replace(settings, ensemble_size=len(chunk), selection="train")
        classifier = fine_tune(encoder, task.train, settings=ensemble, seed=seed + first, only=chunk)
        accuracies += [classifier.single(i).accuracy(task.test.series, task.test.labels) for i in range(len(chunk))]
    std = float(np.std(accuracies, ddof=1)) if tasks > 1 else 0.0
    return {"accuracy": float(np.mean(accuracies)), "std": std, "stderr": std / tasks**0.5}
