import importlib.util
from functools import partial

import numpy as np
import pytest

from nutime_jax.data.datasets import Cases, find_datasets
from nutime_jax.errors import InputError
from nutime_jax.evaluation.protocols import baselines
from nutime_jax.evaluation.protocols.baselines import baseline_metrics

# Each kind of input makes numba compile MiniRocket anew, for many seconds: here it is given one channel only.
QUICK = ["raw_1nn", "raw_1nn_dtw", "raw_forest", "minirocket"]


def waves(seed, *, count=20, channels=1, lengths=(30, 60)):
    """Slow and fast sines with noise, of unequal lengths."""
    rng = np.random.default_rng(seed)
    labels = np.array(["slow", "fast"] * (count // 2))
    series = []
    for label in labels:
        time = np.linspace(0, 1, rng.integers(*lengths))
        wave = np.sin(2 * np.pi * {"slow": 1, "fast": 3}[label] * time)
        series.append((wave + 0.1 * rng.normal(size=(channels, len(time)))).astype(np.float32))
    return Cases(series, labels)


def same_length(seed, *, count=12, channels=1, length=24):
    rng = np.random.default_rng(seed)
    return Cases(list(rng.normal(size=(count, channels, length)).astype(np.float32)), np.array(["a", "b", "c"])[rng.integers(0, 3, count)])


def quick(*values):
    """Return parameters of the quick baselines; MiniRocket is in the second stage, as Numba compiles it in every new environment."""
    return [pytest.param(name, *values, marks=[pytest.mark.slow] if name == "minirocket" else []) for name in QUICK]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels"), [*quick(1), ("raw_1nn", 3), ("raw_1nn_dtw", 3), ("raw_forest", 3)])
def test_baselines_tell_slow_from_fast(name, channels):
    metrics = baseline_metrics(name, waves(0, channels=channels), waves(1, channels=channels), seed=0)
    assert metrics.keys() == {"accuracy", "balanced_accuracy", "f1"}
    assert metrics["accuracy"] >= 0.9
    assert metrics["f1"] >= 0.89


@pytest.mark.parametrize("name", quick())
def test_a_seed_gives_one_result_and_inputs_stay_as_they_are(name):
    train, test = same_length(0), same_length(1)
    before = [one.copy() for one in train.series + test.series]
    assert baseline_metrics(name, train, test, seed=3) == baseline_metrics(name, train, test, seed=3)
    for one, old in zip(train.series + test.series, before, strict=True):
        np.testing.assert_array_equal(one, old)


def f1_by_hand(labels, predicted):
    scores = []
    for label in sorted(set(labels) | set(predicted)):
        hits = np.sum((labels == label) & (predicted == label))
        scores.append(2 * hits / (np.sum(labels == label) + np.sum(predicted == label)))
    return np.mean(scores)


def dtw(a, b, window):
    """DTW of squared differences summed over channels, within a band of `window` of the length, step by step."""
    length = a.shape[1]
    band = int(window * length)
    cost = np.full((length + 1, length + 1), np.inf)
    cost[0, 0] = 0
    for i in range(length):
        for j in range(max(0, i - band), min(length, i + band + 1)):
            cost[i + 1, j + 1] = np.sum((a[:, i] - b[:, j]) ** 2) + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return cost[-1, -1]


@pytest.mark.parametrize("name", ["raw_1nn", "raw_1nn_dtw"])
def test_nearest_neighbours_are_the_nearest(name):
    train, test = same_length(4, count=20, channels=2), same_length(5, count=30, channels=2)
    distance = {"raw_1nn": lambda a, b: np.sum((a - b) ** 2), "raw_1nn_dtw": lambda a, b: dtw(a, b, 0.1)}[name]
    x, z = (np.array(cases.series, np.float64) for cases in (train, test))
    predicted = train.labels[np.array([[distance(a, b) for b in x] for a in z]).argmin(1)]
    metrics = baseline_metrics(name, train, test, seed=0)
    assert metrics["accuracy"] == np.mean(predicted == test.labels)
    assert metrics["f1"] == pytest.approx(f1_by_hand(test.labels, predicted), abs=1e-12)


@pytest.mark.parametrize(("name", "accuracy"), [pytest.param("minirocket", 151 / 175, marks=pytest.mark.slow), ("raw_forest", 122 / 175)])
def test_arrowhead_as_it_was_measured_apart_from_this_library(name, accuracy):
    """Source: ../shared/baselines/measured_default_split.csv, to one test case in 175."""
    files = find_datasets("ArrowHead")[0]
    metrics = baseline_metrics(name, files.read("train"), files.read("test"), seed=0)
    assert metrics["accuracy"] == pytest.approx(accuracy, abs=1 / 175 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 8])
def test_sets_shorter_than_a_kernel_are_stretched(length):
    rng = np.random.default_rng(0)
    labels = np.array(["low", "high"] * 10)
    series = [np.float32((label == "high") + 0.05 * rng.normal(size=(1, length))) for label in labels]
    assert 0 <= baseline_metrics("minirocket", Cases(series, labels), Cases(series, labels), seed=0)["accuracy"] <= 1


def test_test_cases_longer_than_any_training_case_and_classes_of_one_split_only():
    train, test = waves(0, lengths=(30, 40)), waves(1, lengths=(90, 100))
    test = Cases(test.series, np.where(np.arange(len(test.labels)) == 0, "unseen", test.labels))
    metrics = baseline_metrics("raw_forest", train, test, seed=0)
    assert 0.5 < metrics["f1"] < metrics["accuracy"] < 1


def without(cases, **changes):
    return Cases(**{"series": cases.series, "labels": cases.labels, **changes})


@pytest.mark.parametrize(
    ("name", "train", "test", "message"),
    [
        ("rocket", waves(0), waves(1), "baseline 'rocket' is unknown; choose one of raw_1nn"),
        ("raw_1nn", without(waves(0), labels=None), waves(1), "training split has no labelled cases"),
        ("raw_1nn", waves(0), without(waves(1), series=[]), "test split has no labelled cases"),
        ("raw_1nn", without(waves(0), labels=np.array(["a"] * 20)), waves(1), "every training case is of class a"),
        ("raw_1nn", waves(0), waves(1, channels=2), r"cases have \[1, 2\] channels"),
    ],
)
def test_what_cannot_be_classified_is_rejected(name, train, test, message):
    with pytest.raises(InputError, match=message):
        baseline_metrics(name, train, test, seed=0)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("multirocket_hydra", "torch", "torch"), *((name, "tensorflow", "deep") for name in ("fcn", "resnet", "inceptiontime"))],
)
def test_a_network_without_its_package_is_rejected(monkeypatch, name, module, extra):
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"^{module} is not installed; pip install 'nutime_jax\[{extra}\]'$"):
        baseline_metrics(name, waves(0), waves(1), seed=0)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["FCNClassifier", "ResNetClassifier", "InceptionTimeClassifier"])
def test_networks_of_aeon_tell_slow_from_fast(monkeypatch, tmp_path, name):
    pytest.importorskip("tensorflow", reason="pip install tensorflow to test networks")
    from aeon.classification import deep_learning

    monkeypatch.chdir(tmp_path)
    short = {"n_epochs": 30, **({"n_classifiers": 1} if name == "InceptionTimeClassifier" else {})}
    monkeypatch.setattr(deep_learning, name, partial(getattr(deep_learning, name), **short))
    baseline = name.removesuffix("Classifier").lower()
    assert baseline_metrics(baseline, waves(0), waves(1), seed=0)["accuracy"] >= 0.9
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_hydra_tells_slow_from_fast():
    assert baseline_metrics("multirocket_hydra", waves(0), waves(1), seed=0)["accuracy"] >= 0.9
