"""Results of an encoder on the bundled datasets, compared with aeon's MiniRocket and raw series: the tables of docs/expect.md.

    python -m benchmarks.expect
    python -m benchmarks.expect --encoder=runs/quickstart --out=expect.json --page=none

measures, writes benchmarks/results/expect.json, and puts the tables into docs/expect.md between its two markers. Default splits;
test splits choose nothing. All random choices have seed 0.
"""

import argparse
import operator
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.records import machine, replace_tables, write_results

if TYPE_CHECKING:
    from nutime_jax.evaluation.features import Task

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "expect.json", ROOT / "docs" / "expect.md"
METHODS = ("encoder", "minirocket", "raw")
COLUMNS = {"probe": "encoder, probe", "average": "average with fine-tuning", "minirocket": "MiniRocket", "raw_1nn": "raw 1-NN"}
ENSEMBLE_SIZE, MAX_TUNED_CASES = 3, 150
"""Fine-tuned networks, and training cases of the largest set on which they are trained: larger ones take more than ten minutes."""
SHOTS, TASKS = 5, 20
MAX_EXPONENT = 3
"""Each case is multiplied by a random factor from 10**-MAX_EXPONENT to 10**MAX_EXPONENT."""
OFFSET = 1e8
"""Offset added to every value, in float64."""
MISSING = 0.3
"""Fraction of the values of each channel that are removed, in both splits."""


def score(make: Callable[[], object], train: tuple, test: tuple, *, repeats: int) -> dict[str, float]:
    """Return the test accuracy of a classifier in %, and the seconds of fit and prediction in the last run."""
    for _ in range(repeats):
        start = time.perf_counter()
        accuracy = np.mean(make().fit(*train).predict(test[0]) == test[1])
        seconds = time.perf_counter() - start
    return {"accuracy": 100 * float(accuracy), "seconds": seconds}


def resized(task: "Task") -> tuple[tuple, tuple]:
    """Return both splits as arrays (cases, channels, time) of one length, as methods without an encoder need, and labels."""
    from nutime_jax.evaluation.features import raw_features

    length = max(case.shape[1] for case in task.train.series)
    train, test = (
        (raw_features(cases, length=length).features.reshape(len(cases.series), -1, length), cases.labels)
        for cases in (task.train, task.test)
    )
    return train, test


def measure_classifiers(encoder: str) -> dict[str, dict]:
    """Return dataset -> method -> accuracy and seconds. All but fine-tuning run twice: the first run compiles."""
    from aeon.classification.convolution_based import MiniRocketClassifier

    from nutime_jax.data.datasets import find_datasets
    from nutime_jax.estimators import NuTimeClassifier
    from nutime_jax.evaluation.features import read_task
    from nutime_jax.loading import load_encoder

    loaded, results = load_encoder(encoder), {}
    tuning = {"strategy": "average", "ensemble_size": ENSEMBLE_SIZE, "random_state": 0}
    for files in find_datasets("bundled"):
        task = read_task(files)
        ours = [(cases.series, cases.labels) for cases in (task.train, task.test)]
        theirs = resized(task)
        found = results[files.name] = {
            "probe": score(lambda: NuTimeClassifier(loaded), *ours, repeats=2),
            "minirocket": score(lambda: MiniRocketClassifier(random_state=0), *theirs, repeats=2),
            "raw_1nn": score(nearest_neighbour, *theirs, repeats=2),
        }
        if len(task.train.series) <= MAX_TUNED_CASES:
            found["average"] = score(lambda: NuTimeClassifier(loaded, **tuning), *ours, repeats=1)
        print(files.name, found, flush=True)
    return results


def nearest_neighbour():
    """1-NN on the raw series, all channels concatenated."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(FunctionTransformer(lambda x: x.reshape(len(x), -1)), KNeighborsClassifier(1))


def measure_features(encoder: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return dataset -> task -> method -> value in percent, for tasks with few labels or none."""
    from aeon.transformations.collection.convolution_based import MiniRocket

    from nutime_jax.data.datasets import find_datasets
    from nutime_jax.evaluation.features import FeatureSet, encode_cases, read_task
    from nutime_jax.evaluation.protocols.anomaly import anomaly_metrics
    from nutime_jax.evaluation.protocols.clustering import clustering_metrics
    from nutime_jax.evaluation.protocols.fewshot import fewshot_metrics
    from nutime_jax.loading import load_encoder

    loaded, results = load_encoder(encoder), {}
    for files in find_datasets("bundled"):
        task = read_task(files)
        (train, train_labels), (test, test_labels) = resized(task)
        rocket = MiniRocket(random_state=0).fit(train)
        splits = {
            "encoder": tuple(encode_cases(loaded, cases, channels="concat") for cases in (task.train, task.test)),
            "minirocket": (FeatureSet(rocket.transform(train), train_labels), FeatureSet(rocket.transform(test), test_labels)),
            "raw": (FeatureSet(train.reshape(len(train), -1), train_labels), FeatureSet(test.reshape(len(test), -1), test_labels)),
        }
        found = results[files.name] = {"fewshot": {}, "clustering": {}, "anomaly": {}}
        for name, both in splits.items():
            found["fewshot"][name] = 100 * fewshot_metrics(*both, shots=SHOTS, tasks=TASKS)["accuracy"]
            found["clustering"][name] = 100 * clustering_metrics(both[1])["nmi"]
            found["anomaly"][name] = 100 * anomaly_metrics(*both)["roc_auc"]
        print(files.name, found, flush=True)
    return results


def measure_damage(encoder: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return dataset -> corruption -> method -> accuracy in percent of classifiers trained and tested on corrupted cases."""
    from aeon.classification.convolution_based import MiniRocketClassifier

    from nutime_jax.data.datasets import find_datasets
    from nutime_jax.data.series import clean_block
    from nutime_jax.estimators import NuTimeClassifier
    from nutime_jax.evaluation.features import read_task
    from nutime_jax.loading import load_encoder

    loaded, results = load_encoder(encoder), {}
    methods = {
        "encoder": lambda: NuTimeClassifier(loaded),
        "minirocket": lambda: MiniRocketClassifier(random_state=0),
        "raw": nearest_neighbour,
    }
    for files in find_datasets("bundled"):
        splits = resized(read_task(files))
        found = results[files.name] = {}
        for kind, damage in (("scales", _rescale), ("offset", _lift), ("centred", _centre), ("missing", _remove)):
            damaged = [(damage(x, np.random.default_rng(seed)), y) for seed, (x, y) in enumerate(splits)]
            # Methods that reject missing values receive interpolated ones, as the encoder does internally.
            mended = [(np.stack(clean_block(x)), y) for x, y in damaged] if kind == "missing" else damaged
            found[kind] = {
                name: score(make, *(damaged if name == "encoder" else mended), repeats=1)["accuracy"] for name, make in methods.items()
            }
        print(files.name, found, flush=True)
    return results


def _rescale(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (x * 10.0 ** rng.uniform(-MAX_EXPONENT, MAX_EXPONENT, (len(x), 1, 1))).astype(np.float32)


def _lift(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x.astype(np.float64) + OFFSET


def _centre(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lifted = _lift(x, rng)
    return (lifted - lifted.mean(-1, keepdims=True)).astype(np.float32)


def _remove(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove values inside a series; without its ends it would be shorter."""
    missing = rng.random(x.shape) < MISSING
    missing[..., [0, -1]] = False
    return np.where(missing, np.float32(np.nan), x)


def render(results: dict) -> str:
    """Return the tables of the page, in Markdown."""
    sets, about = results["sets"], results["machine"]
    lines = [f"| set | {' | '.join(COLUMNS.values())} |", "|---|" + "---|" * len(COLUMNS)]
    for name, found in sets.items():
        cells = [f"{found[m]['accuracy']:.1f} ({_seconds(found[m]['seconds'])})" if m in found else "" for m in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    tuned = {name: found for name, found in sets.items() if "average" in found}
    for part in (sets, tuned):
        means = [f"**{_mean_of(part, m):.1f}**" if all(m in found for found in part.values()) else "" for m in COLUMNS]
        lines.append(f"| **mean of {len(part)}** | {' | '.join(means)} |")
    lines += ["", f"Accuracy in % on the test split, and seconds of fit and prediction together. {_wins(sets)}", ""]
    accuracy = dict(zip(METHODS, (_mean_of(sets, m) for m in ("probe", "minirocket", "raw_1nn")), strict=True))
    table = [
        ("accuracy: classifier, all training cases", accuracy),
        *((words, results["means"][kind]) for kind, words in ROWS.items()),
    ]
    lines += ["| mean over the sets, in % | encoder | MiniRocket | raw series |", "|---|---|---|---|"]
    lines += [f"| {words} | {' | '.join(_cell(values, m) for m in METHODS)} |" for words, values in table]
    versions = ", ".join(f"{name} {about[name]}" for name in ("jax", "aeon", "scikit-learn"))
    lines += [
        "",
        f"Encoder `{results['encoder']}`; {about['cores']} CPU cores, at the start with a load of {about['load']:.0f}; {versions}; "
        f"commit {about['commit']}.",
    ]
    return "\n".join(lines)


ROWS = {
    "fewshot": f"accuracy: ridge with a Gaussian kernel on {SHOTS} cases per class, {TASKS} draws",
    "scales": f"accuracy: classifier, every case times its own 10^-{MAX_EXPONENT} to 10^{MAX_EXPONENT}",
    "offset": f"accuracy: classifier, {OFFSET:,.0f} added to every value, in float64",
    "centred": "accuracy: the same, after taking the mean of every channel off",
    "missing": f"accuracy: classifier, {MISSING:.0%} of all points missing (for the others interpolated)",
    "clustering": "agreement of clusters with classes (NMI), no label used",
    "anomaly": "ROC AUC of cases of other classes, one class known",
}


def _mean_of(sets: dict, method: str) -> float:
    return float(np.mean([found[method]["accuracy"] for found in sets.values()]))


def _wins(sets: dict) -> str:
    pairs = [(found["minirocket"]["accuracy"], found["probe"]["accuracy"]) for found in sets.values()]
    ahead, level = (sum(test(a, b) for a, b in pairs) for test in (operator.gt, operator.eq))
    return f"MiniRocket is ahead of the probe on {ahead} of {len(pairs)} sets, and level on {level}."


def _seconds(value: float) -> str:
    return "0.1 s or less" if value < 0.15 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _cell(values: dict[str, float], method: str) -> str:
    """Format a value, bold if it is the best of its row."""
    text = f"{values[method]:.1f}"
    return f"**{text}**" if text == f"{max(values.values()):.1f}" else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="nutime-small", help="a shipped encoder, a workdir or a checkpoint (default: nutime-small)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file for the results")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose tables are replaced, or none")
    args = parser.parse_args()
    about = {**machine("jax", "numpy", "scikit-learn", "aeon"), "load": os.getloadavg()[0]}
    sets = measure_classifiers(args.encoder)
    others = [measure_features(args.encoder), measure_damage(args.encoder)]
    details = {name: {**others[0][name], **others[1][name]} for name in sets}
    means = {kind: {m: float(np.mean([found[kind][m] for found in details.values()])) for m in METHODS} for kind in ROWS}
    results = {"sets": sets, "means": means, "details": details, "encoder": args.encoder, "machine": about}
    write_results(results, args.out)
    if str(args.page) != "none":
        replace_tables(render(results), args.page, maker="benchmarks.expect")


if __name__ == "__main__":
    main()
