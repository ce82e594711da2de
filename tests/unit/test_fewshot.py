import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.preprocessing import KernelCenterer

from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import FeatureSet
from nutime_jax.evaluation.protocols import fewshot
from nutime_jax.evaluation.protocols.fewshot import draw_tasks, fewshot_metrics, task_accuracies


def blobs(seed, *, cases=60, features=8, classes=3, spread=1.0):
    rng = np.random.default_rng(seed)
    codes = np.arange(cases) % classes
    features = spread * rng.normal(size=(cases, features)) + 5
    features[np.arange(cases), codes] += 2
    return FeatureSet(features.astype(np.float32), np.array([f"class {code}" for code in codes]))


def scaled(train, test, places):
    """Support and test cases standardised by the support, in float64."""
    support = train.features[places.ravel()].astype(np.float64)
    mean, std = support.mean(0), support.std(0)
    std[std <= 1e-6 * np.abs(mean)] = 1
    return (support - mean) / std, (test.features - mean) / std, train.labels[places.ravel()]


def kernel_scores(support, targets, cases):
    """Scores of scikit-learn's kernel ridge with the centred Gaussian kernel of clipped features."""
    support, cases = (np.clip(x, -2, 2) for x in (support, cases))
    width = np.median(pdist(support, "sqeuclidean"))
    kernel, rows = (np.exp(-cdist(x, support, "sqeuclidean") / (2 * width)) for x in (support, cases))
    centring = KernelCenterer().fit(kernel)
    gram, level = centring.transform(kernel), targets.mean(0)
    model = KernelRidge(alpha=fewshot.KERNEL_PENALTY * np.trace(gram) / len(gram), kernel="precomputed").fit(gram, targets - level)
    return model.predict(centring.transform(rows)) + level


@pytest.mark.parametrize(("features", "shots", "classes"), [(8, 5, 3), (8, 1, 2), (40, 5, 5), (4, 10, 3)])
@pytest.mark.parametrize("head", ["kernel", "ridge", "centroid"])
def test_tasks_are_those_of_one_fit_after_the_other(head, features, shots, classes):
    """Every task against scikit-learn in float64; float32 may flip one test case in a hundred."""
    train, test = (blobs(s, features=features, classes=classes, cases=90) for s in (0, 1))
    accuracies = task_accuracies(train, test, shots=shots, tasks=6, head=head, seed=3)
    for accuracy, places in zip(accuracies, draw_tasks(train.labels, shots=shots, tasks=6, seed=3), strict=True):
        support, cases, labels = scaled(train, test, places)
        names = np.unique(labels)
        if head == "centroid":
            centroids = np.stack([support[labels == name].mean(0) for name in names])
            predicted = names[((cases[:, None] - centroids) ** 2).sum(-1).argmin(1)]
        elif head == "kernel":
            predicted = names[kernel_scores(support, (labels[:, None] == names).astype(float), cases).argmax(1)]
        else:
            model = Ridge(fewshot.PENALTY * features).fit(support, (labels[:, None] == names).astype(float))
            predicted = names[model.predict(cases).argmax(1)]
        assert abs(np.mean(predicted == test.labels) - accuracy) <= 0.011


def test_draws_come_from_seed_and_task_alone():
    labels = blobs(0).labels
    draws = draw_tasks(labels, shots=5, tasks=20, seed=1)
    np.testing.assert_array_equal(draw_tasks(labels, shots=5, tasks=3, seed=1), draws[:3])
    np.testing.assert_array_equal(draw_tasks(labels, shots=2, tasks=20, seed=1), draws[:, :, :2])
    assert (draw_tasks(labels, shots=5, tasks=20, seed=2) != draws).any()
    assert len(np.unique(draws[:, 0], axis=0)) > 10
    for place, name in enumerate(np.unique(labels)):
        assert (labels[draws[:, place]] == name).all()
    assert all(len(set(task.ravel())) == task.size for task in draws)


def test_draws_are_even():
    draws = draw_tasks(np.array(["a", "b"] * 10), shots=5, tasks=400)
    counts = np.bincount(draws.ravel(), minlength=20)  # 200 expected of each, standard deviation 10
    assert np.abs(counts - 200).max() < 50


@pytest.mark.parametrize("head", ["kernel", "ridge", "centroid"])
def test_metrics_are_those_of_the_tasks(head):
    train, test = blobs(0, spread=0.3), blobs(1, spread=0.3)
    accuracies = task_accuracies(train, test, tasks=10, head=head)
    metrics = fewshot_metrics(train, test, tasks=10, head=head)
    assert metrics["accuracy"] == pytest.approx(accuracies.mean())
    assert metrics["accuracy"] > 0.9
    assert metrics["std"] == pytest.approx(accuracies.std(ddof=1))
    assert metrics["stderr"] == pytest.approx(accuracies.std(ddof=1) / 10**0.5)
    assert fewshot_metrics(train, test, tasks=1, head=head)["std"] == 0


@pytest.mark.parametrize("head", ["kernel", "ridge", "centroid"])
def test_constant_features_tell_nothing(head):
    train, test = (FeatureSet(np.full((60, 4), 0.1, np.float32), blobs(s).labels) for s in (0, 1))
    np.testing.assert_allclose(task_accuracies(train, test, tasks=3, head=head), 1 / 3)


@pytest.mark.parametrize("head", ["kernel", "ridge", "centroid"])
def test_classes_may_be_missing_from_either_split(head):
    train, test = blobs(0, spread=0.1, features=3), blobs(1, spread=0.1, features=3)
    unknown = FeatureSet(test.features, np.where(test.labels == "class 1", "aardvark", test.labels))
    np.testing.assert_allclose(task_accuracies(train, unknown, tasks=3, head=head), 2 / 3)
    few = test.labels != "class 1"
    fewer = FeatureSet(test.features[few], test.labels[few])
    np.testing.assert_allclose(task_accuracies(train, fewer, tasks=3, head=head), 1)


def test_programs_do_not_grow_with_the_number_of_sets():
    fewshot._fit_tasks.clear_cache()
    fewshot._count_right.clear_cache()
    for cases, classes in ((30, 3), (45, 3), (44, 4), (64, 4)):
        train, test = blobs(0, cases=cases, classes=classes), blobs(1, cases=cases, classes=classes)
        task_accuracies(train, test, shots=2, tasks=4)
    assert fewshot._fit_tasks._cache_size() == 1
    assert fewshot._count_right._cache_size() == 1


def test_test_splits_of_many_blocks_are_scored_whole():
    train, test = blobs(0), blobs(1, cases=2 * fewshot.BLOCK + 7)
    parts = [FeatureSet(test.features[i::2], test.labels[i::2]) for i in (0, 1)]
    whole = task_accuracies(train, test, tasks=2) * len(test.labels)
    np.testing.assert_allclose(whole, sum(task_accuracies(train, one, tasks=2) * len(one.labels) for one in parts))


def test_more_shots_than_cases_are_rejected():
    labels = np.array(["a"] * 7 + ["b"] * 3)
    with pytest.raises(InputError, match="class 'b' has 3 training cases, too few for 5 shots; ask for 3 or fewer"):
        fewshot_metrics(FeatureSet(np.zeros((10, 2), np.float32), labels), blobs(0), shots=5)


@pytest.mark.parametrize(
    ("options", "message"), [({"head": "svm"}, "head 'svm' is unknown"), ({"shots": 0}, "0 shots"), ({"tasks": 0}, "0 tasks")]
)
def test_unknown_options_are_rejected(options, message):
    with pytest.raises(InputError, match=message):
        fewshot_metrics(blobs(0), blobs(1), **options)
