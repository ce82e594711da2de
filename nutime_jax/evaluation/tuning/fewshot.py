"""Few-shot tasks with fine-tuning: every task is a member of an ensemble that is trained on cases of its own."""

import dataclasses

import numpy as np

from nutime_jax.config import TuningSettings
from nutime_jax.encoder import Encoder
from nutime_jax.evaluation.features import Task
from nutime_jax.evaluation.fewshot import draw_tasks
from nutime_jax.evaluation.tuning.finetune import DEFAULTS, fine_tune

CHUNK = 10
"""Tasks that are trained side by side; more need more memory."""


def tuned_fewshot_metrics(
    encoder: Encoder, task: Task, *, shots: int = 5, tasks: int = 10, settings: TuningSettings = DEFAULTS, seed: int = 0
) -> dict[str, float]:
    """Accuracy on the whole test split of classifiers that were fine-tuned on `shots` cases of every class.

    Nothing is left to validate with: all epochs are run, with the middle one of the rates.

    Args:
        shots, tasks, seed: as in `evaluation.fewshot.fewshot_metrics`, whose draws these are.

    Returns:
        "accuracy", "std" and "stderr" over tasks, as `fewshot_metrics`.

    Raises:
        InputError: a class has fewer training cases than shots.
    """
    places = draw_tasks(task.train.labels, shots=shots, tasks=tasks, seed=seed).reshape(tasks, -1)
    rate = (settings.rates[len(settings.rates) // 2],)
    accuracies = []
    for first in range(0, tasks, CHUNK):
        chunk = places[first : first + CHUNK]
        one_rate = dataclasses.replace(settings, rates=rate, members=len(chunk), selection="train")
        classifier = fine_tune(encoder, task.train, settings=one_rate, seed=seed + first, only=chunk)
        accuracies += [classifier.alone(i).accuracy(task.test.series, task.test.labels) for i in range(len(chunk))]
    std = float(np.std(accuracies, ddof=1)) if tasks > 1 else 0.0
    return {"accuracy": float(np.mean(accuracies)), "std": std, "stderr": std / tasks**0.5}
