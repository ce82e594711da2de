"""What pretraining is worth, at a glance: encoders behind two probes, beside the raw series."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from nutime_jax.encoder import Encoder
from nutime_jax.evaluation.features import Task, encode_cases
from nutime_jax.evaluation.protocols.baselines import baseline_metrics
from nutime_jax.evaluation.protocols.probes import probe_metrics
from nutime_jax.evaluation.results import Row

PROBES = ("ridge", "1nn")
RAW = "raw_1nn"


def compare(encoders: Mapping[str, Encoder], task: Task, **options) -> list[Row]:
    """Accuracy of every encoder behind every probe, and of 1-NN on the raw series.

    Args:
        encoders: name of the method -> encoder.
        task: a set to classify.
        options: those of `Encoder.embed`.
    """
    setting = " ".join(f"{name}={value}" for name, value in options.items())
    rows = []

    def keep(method: str, protocol: str, setting: str, metrics: dict[str, float], started: float) -> None:
        sizes = {"train_cases": len(task.train.labels), "test_cases": len(task.test.labels), "seconds": time.perf_counter() - started}
        rows.append(Row(method, task.name, protocol, setting, 0, "accuracy", metrics["accuracy"], **sizes))

    for method, encoder in encoders.items():
        train, test = (encode_cases(encoder, cases, **options) for cases in (task.train, task.test))
        for probe in PROBES:
            started = time.perf_counter()
            keep(method, probe, setting, probe_metrics(probe, train, test), started)
    started = time.perf_counter()
    keep(RAW, "baseline", "", baseline_metrics(RAW, task.train, task.test, seed=0), started)
    return rows


def format_accuracies(rows: Sequence[Row], columns: Mapping[tuple[str, str], str]) -> str:
    """Accuracies in percent, a line a set and their mean below.

    Args:
        columns: (method, protocol) -> heading.
    """
    cells = {(row.dataset, row.method, row.protocol): row.value for row in rows}
    names = list(dict.fromkeys(row.dataset for row in rows))
    values = [[cells[name, *key] for key in columns] for name in names]
    table = [["set", *columns.values()]]
    table += [[name, *(f"{100 * value:.1f}" for value in line)] for name, line in zip(names, values, strict=True)]
    table += [[f"mean of {len(names)}", *(f"{100 * value:.1f}" for value in np.mean(values, axis=0))]]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]) for line in table
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
