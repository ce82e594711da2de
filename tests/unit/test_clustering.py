from itertools import permutations

import numpy as np
import pytest

from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import FeatureSet
from nutime_jax.evaluation.protocols.clustering import clustering_metrics, find_clusters, matched_accuracy


def blobs(spread=0.1, cases=60):
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.arange(cases) % 3)
    features = spread * rng.normal(size=(cases, 4)) + np.eye(4)[codes] * np.array([1, 1e4, 1e-4, 1])
    return FeatureSet(features.astype(np.float32), np.array(["a", "b", "c"])[codes])


def test_clusters_that_are_classes_score_one():
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y"], 20)
    features = np.where(labels == "x", 0, 9)[:, None] + rng.normal(size=(40, 3))
    assert clustering_metrics(FeatureSet(features, labels)) == pytest.approx({"nmi": 1, "ari": 1, "ri": 1, "accuracy": 1})


def test_units_of_features_do_not_matter():
    one = blobs()
    scaled = FeatureSet(one.features * np.array([1e-3, 1, 1e3, 7], np.float32), one.labels)
    assert clustering_metrics(one) == pytest.approx(clustering_metrics(scaled))


def test_labels_do_not_touch_the_clusters():
    one = blobs(spread=2.0)
    shuffled = FeatureSet(one.features, np.random.default_rng(1).permutation(one.labels))
    assert abs(clustering_metrics(shuffled)["ari"]) < 0.15
    np.testing.assert_array_equal(find_clusters(one.features, 3), find_clusters(one.features, 3))


def test_scores_are_those_of_their_definitions():
    """Rand index over all pairs, accuracy over all matchings, NMI from entropies: to 1e-12."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 2)), rng.integers(0, 3, 30)
    clusters, metrics = find_clusters(features, 3), clustering_metrics(FeatureSet(features, labels))
    upper = np.triu_indices(30, 1)
    same = [(one[:, None] == one)[upper] for one in (labels, clusters)]
    assert metrics["ri"] == pytest.approx(np.mean(same[0] == same[1]), abs=1e-12)
    best = max(np.mean(np.array(order)[clusters] == labels) for order in permutations(range(3)))
    assert metrics["accuracy"] == pytest.approx(best, abs=1e-12)
    joint = np.array([[np.mean((labels == i) & (clusters == j)) for j in range(3)] for i in range(3)])
    outer = np.outer(joint.sum(1), joint.sum(0))
    entropies = [-(p * np.log(p)).sum() for p in (joint.sum(1), joint.sum(0))]
    information = (joint[joint > 0] * np.log(joint[joint > 0] / outer[joint > 0])).sum()
    assert metrics["nmi"] == pytest.approx(information / np.mean(entropies), abs=1e-12)


def test_fewer_clusters_than_classes_can_be_matched():
    assert matched_accuracy(np.array(["a", "b", "c", "c"]), np.zeros(4, int)) == 0.5


@pytest.mark.parametrize("kind", ["constant", "one case a class", "one class", "one feature"])
def test_odd_sets_have_scores(kind):
    cases = blobs()
    cases = {
        "constant": FeatureSet(np.ones_like(cases.features), cases.labels),
        "one case a class": FeatureSet(np.eye(3), np.array(["a", "b", "c"])),
        "one class": FeatureSet(cases.features, np.full(60, "a")),
        "one feature": FeatureSet(cases.features[:, :1], cases.labels),
    }[kind]
    metrics = clustering_metrics(cases)
    assert all(np.isfinite(value) for value in metrics.values())
    if kind == "one case a class":
        assert metrics["accuracy"] == 1


def test_no_cases_are_rejected():
    with pytest.raises(InputError, match="no cases to cluster"):
        clustering_metrics(FeatureSet(np.zeros((0, 3)), np.zeros(0, str)))
