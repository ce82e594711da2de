"""Accuracy and time of the scikit-learn estimators on the bundled datasets, compared with aeon's MiniRocket and 1-NN.

    python -m benchmarks.estimators --encoder=runs/small
    python -m benchmarks.estimators --encoder=runs/small --tuned=GunPoint,ArrowHead --out=benchmarks/results/estimators.json

Default splits; the test split is scored once, and chooses nothing. A probe, MiniRocket and 1-NN are fitted and scored twice:
`first` compiles what it needs, `seconds` does not. Fine-tuning is timed with its compilation, which datasets share. Seconds are those of
fit and of predicting the test split together.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.records import machine, write_results

if TYPE_CHECKING:
    from nutime_jax.evaluation.features import Task

TUNED = "GunPoint,ItalyPowerDemand,PickupGestureWiimoteZ"


def score(make: Callable[[], object], train: tuple, test: tuple, *, repeats: int) -> dict[str, float]:
    """Return the test accuracy of a classifier in %, and the seconds of its first and last run."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        accuracy = np.mean(make().fit(*train).predict(test[0]) == test[1])
        seconds.append(time.perf_counter() - start)
    times = {"first": seconds[0], "seconds": seconds[-1]} if repeats > 1 else {"seconds": seconds[0]}
    return {"accuracy": 100 * float(accuracy), **times}


def resized(task: "Task") -> tuple[tuple, tuple]:
    """Return both splits as arrays (cases, channels, time) of one length, as methods without an encoder need, and labels."""
    from nutime_jax.evaluation.features import raw_features

    length = max(case.shape[1] for case in task.train.series)
    train, test = (
        (raw_features(cases, length=length).features.reshape(len(cases.series), -1, length), cases.labels)
        for cases in (task.train, task.test)
    )
    return train, test


def measure(encoder: str, tuned: list[str]) -> dict[str, dict]:
    from aeon.classification.convolution_based import MiniRocketClassifier

    from nutime_jax.data.datasets import find_datasets
    from nutime_jax.estimators import NuTimeClassifier
    from nutime_jax.evaluation.features import read_task
    from nutime_jax.loading import load_encoder

    loaded, results = load_encoder(encoder), {}
    for files in find_datasets("bundled"):
        task = read_task(files)
        ours = [(cases.series, cases.labels) for cases in (task.train, task.test)]
        theirs = resized(task)
        found = results[files.name] = {
            "probe": score(lambda: NuTimeClassifier(loaded), *ours, repeats=2),
            "minirocket": score(lambda: MiniRocketClassifier(random_state=0), *theirs, repeats=2),
            "raw_1nn": score(nearest_neighbour, *theirs, repeats=2),
        }
        for strategy in ("head", "full") if files.name in tuned else ():
            found[strategy] = score(lambda s=strategy: NuTimeClassifier(loaded, strategy=s, random_state=0), *ours, repeats=1)
        print(
            files.name,
            *(f"{name} {score['accuracy']:.1f} % in {score['seconds']:.2f} s" for name, score in found.items()),
            sep="  ",
            flush=True,
        )
    return results


def nearest_neighbour():
    """1-NN on the raw series, all channels concatenated."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(FunctionTransformer(lambda x: x.reshape(len(x), -1)), KNeighborsClassifier(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="nutime-small", help="a shipped encoder, a workdir or a checkpoint")
    parser.add_argument("--tuned", default=TUNED, help=f"sets that are fine-tuned on as well (default: {TUNED}); may be empty")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args()
    sets = measure(args.encoder, args.tuned.split(","))
    methods = ("probe", "minirocket", "raw_1nn")
    mean = {name: float(np.mean([found[name]["accuracy"] for found in sets.values()])) for name in methods}
    about = {**machine("jax", "numpy", "scikit-learn", "aeon"), "load": os.getloadavg()[0]}
    write_results({"sets": sets, "mean_accuracy": mean, "encoder": args.encoder, "machine": about}, args.out)


if __name__ == "__main__":
    main()
