"""Every method on every set: frozen encoders behind probes, and the raw series."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nutime_jax.encoder import Encoder
from nutime_jax.evaluation.features import Task, encode_cases, raw_cases
from nutime_jax.evaluation.probes import nearest_neighbour_accuracy, test_accuracy

PROBES = ("ridge", "1nn")


@dataclass(frozen=True)
class Result:
    """One cell: the share of test cases that a method labels rightly on the default split of a set."""

    dataset: str
    method: str
    probe: str
    accuracy: float
    train_cases: int
    test_cases: int


def evaluate(encoders: Mapping[str, Encoder], tasks: Iterable[Task], **options) -> list[Result]:
    """Accuracy of every encoder behind every probe, and of 1-NN on the raw series.

    Args:
        encoders: name of the method -> encoder.
        tasks: sets to classify.
        options: those of `Encoder.embed`.
    """
    results = []
    for task in tasks:
        sizes = {"train_cases": len(task.train.labels), "test_cases": len(task.test.labels)}
        for method, encoder in encoders.items():
            train, test = (encode_cases(encoder, cases, **options) for cases in (task.train, task.test))
            results += [Result(task.name, method, probe, test_accuracy(probe, train, test), **sizes) for probe in PROBES]
        length = max(case.shape[-1] for case in task.train.series)
        train, test = (raw_cases(cases, length=length) for cases in (task.train, task.test))
        results.append(Result(task.name, "raw", "1nn", nearest_neighbour_accuracy(train, test), **sizes))
    return results
