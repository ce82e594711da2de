import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from nutime_jax.errors import InputError
from nutime_jax.evaluation.classifiers import (
    PENALTIES,
    SHARPNESS,
    CrossValidatedLogisticRegression,
    LeaveOneOutKernelRidge,
    LeaveOneOutNeighbours,
    LeaveOneOutRidge,
    nearest,
    nearest_distances,
    stratified_folds,
    vote,
)
from nutime_jax.evaluation.features import FeatureSet
from nutime_jax.evaluation.protocols.probes import PROBES, SCALERS, cross_validated_accuracy, make_probe, monitor_accuracy, probe_metrics


def blobs(seed, *, cases=60, features=8, classes=3, spread=1.0):
    """Classes around corners of a simplex, as float32, labels as text."""
    rng = np.random.default_rng(seed)
    codes = np.arange(cases) % classes
    features = spread * rng.normal(size=(cases, features))
    features[np.arange(cases), codes % features.shape[1]] += 2
    return FeatureSet(features.astype(np.float32), np.array([f"class {code}" for code in codes]))


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_finds_what_is_there(probe, scaler):
    train, test = blobs(0, spread=0.2), blobs(1, spread=0.2)
    metrics = probe_metrics(probe, train, test, scaler=scaler)
    assert metrics["accuracy"] > 0.9
    assert metrics["f1"] > 0.9
    assert metrics.get("train_cv", 1) > 0.9
    assert metrics == probe_metrics(probe, train, test, scaler=scaler)


@pytest.mark.parametrize("probe", PROBES)
def test_probes_leave_their_input_alone_and_can_be_cloned(probe):
    train = blobs(0)
    before = train.features.astype(np.float64)
    features = before.copy()
    fitted = make_probe(probe, scaler="none").fit(features, train.labels)
    np.testing.assert_array_equal(features, before)
    again = clone(fitted).fit(features, train.labels)
    np.testing.assert_array_equal(again.predict(features), fitted.predict(features))


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("kind", ["single cases", "constant", "one feature", "one more", "as many cases as features"])
def test_probes_take_what_sets_can_be(probe, kind):
    train, test = blobs(0, cases=30), blobs(1, cases=30)
    if kind == "single cases":
        train = FeatureSet(train.features[:3], train.labels[:3])
    if kind == "constant":
        train, test = (FeatureSet(np.full_like(one.features, 3.3), one.labels) for one in (train, test))
    if kind == "one feature":
        train, test = (FeatureSet(one.features[:, :1], one.labels) for one in (train, test))
    if kind == "one more":  # a class of one case in train, and one that train has not
        train = FeatureSet(train.features, np.where(np.arange(30) == 0, "alone", train.labels))
        test = FeatureSet(test.features, np.where(np.arange(30) == 0, "unknown", test.labels))
    if kind == "as many cases as features":
        train = FeatureSet(train.features[:8], train.labels[:8])
    metrics = probe_metrics(probe, train, test)
    assert all(0 <= value <= 1 for value in metrics.values())
    if kind == "constant":
        assert metrics["accuracy"] <= 0.4


def test_macro_f1_is_the_mean_over_classes():
    train = FeatureSet(np.array([[0.0], [1.0], [2.0]]), np.array(["a", "b", "c"]))
    test = FeatureSet(np.array([[0.0], [0.0], [1.0]]), np.array(["a", "b", "b"]))
    metrics = probe_metrics("1nn", train, test)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize(("cases", "features", "classes"), [(40, 12, 2), (40, 12, 5), (12, 12, 3), (13, 12, 3), (20, 90, 4), (9, 200, 9)])
def test_ridge_is_that_of_scikit_learn(cases, features, classes):
    train, test = (StandardScaler().fit_transform(blobs(s, cases=cases, features=features, classes=classes).features) for s in (0, 1))
    labels = blobs(0, cases=cases, features=features, classes=classes).labels
    ours, theirs = LeaveOneOutRidge().fit(train, labels), RidgeClassifierCV(PENALTIES).fit(train, labels)
    assert ours.penalty_ == theirs.alpha_
    np.testing.assert_array_equal(ours.predict(test), theirs.predict(test))
    np.testing.assert_allclose(ours.coef_[-1], np.atleast_2d(theirs.coef_)[-1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("features", [3, 30])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
def test_leave_one_out_accuracy_is_that_of_fits_without_the_case(features, penalty, classes):
    train = blobs(0, cases=18, features=features, classes=classes, spread=2.0)
    X = train.features.astype(np.float64)
    correct = []
    for i in range(len(X)):
        fitted = RidgeClassifier(penalty).fit(np.delete(X, i, 0), np.delete(train.labels, i))
        correct.append(fitted.predict(X[i : i + 1])[0] == train.labels[i])
    assert LeaveOneOutRidge((penalty,)).fit(X, train.labels).train_accuracy_ == np.mean(correct)


@pytest.mark.parametrize("centres", [40, 12])
def test_kernel_ridge_solves_its_equations(monkeypatch, centres):
    monkeypatch.setattr("nutime_jax.finetuning.probe.MAX_CENTRES", centres)
    X, test = (StandardScaler().fit_transform(blobs(s, cases=40, spread=2.0).features.astype(np.float64)) for s in (0, 1))
    labels = blobs(0, cases=40, spread=2.0).labels
    ours = LeaveOneOutKernelRidge((0.01,)).fit(X, labels)
    chosen = ours.kernel_.centres.astype(np.float64)
    assert len(chosen) == centres
    squared = [((a - b) ** 2).sum() for i, a in enumerate(chosen) for b in chosen[:i]]
    assert ours.kernel_.width**2 == pytest.approx(np.median(squared))

    def kernel(one):
        return np.array([[np.exp(-((np.clip(a, -2, 2) - b) ** 2).sum() / (2 * ours.kernel_.width**2)) for b in chosen] for a in one])

    targets = np.where(labels[:, None] == ours.classes_, 1.0, -1.0)
    columns = kernel(X) - kernel(X).mean(0)
    weights = np.linalg.solve(columns.T @ columns + 0.01 * kernel(chosen), columns.T @ (targets - targets.mean(0)))
    expected = (kernel(test) - kernel(X).mean(0)) @ weights + targets.mean(0)
    np.testing.assert_allclose(ours.decision_function(test), expected, atol=1e-6)


@pytest.mark.parametrize(("temperature", "cases"), [(0.07, 60), (0.5, 60), (1e-6, 60), (0.07, 8)])
def test_neighbours_of_the_monitor_vote_by_similarity(temperature, cases):
    train = blobs(0, cases=cases, spread=2.0)
    unit = train.features.astype(np.float64) / np.linalg.norm(train.features.astype(np.float64), axis=1, keepdims=True)
    correct = []
    for i in range(cases):
        others = np.delete(np.arange(cases), i)
        nearest = others[np.argsort(-unit[others] @ unit[i])][:20]
        votes = {}
        for j in nearest:
            vote = np.exp((unit[j] @ unit[i] - unit[nearest[0]] @ unit[i]) / temperature)
            votes[train.labels[j]] = votes.get(train.labels[j], 0) + vote
        correct.append(max(votes, key=votes.get) == train.labels[i])
    assert monitor_accuracy(train, probe="knn", temperature=temperature) == np.mean(correct)
    assert 0.2 < np.mean(correct) < 0.9


@pytest.mark.parametrize("probe", ["ridge", "knn"])
def test_the_monitor_needs_a_class_of_two_cases(probe):
    train = blobs(0, cases=3)
    with pytest.raises(InputError, match="every class has one case; cross-validation needs a class of two or more"):
        monitor_accuracy(train, probe=probe, temperature=0.07)


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_ridge_minimise_the_leave_one_out_loss(classes):
    train = blobs(0, cases=18, features=6, classes=classes, spread=2.0)
    X = train.features.astype(np.float64)
    fitted = LeaveOneOutRidge((1.0,)).fit(X, train.labels)
    scores = np.stack(
        [LeaveOneOutRidge((1.0,)).fit(np.delete(X, i, 0), np.delete(train.labels, i))._scores(X[i : i + 1])[0] for i in range(18)]
    )
    own = (train.labels[:, None] == fitted.classes_).argmax(1)

    def loss(factor):
        odds = np.exp(factor * scores)
        return -np.log(odds[np.arange(18), own] / odds.sum(1)).mean()

    step = SHARPNESS[1] / SHARPNESS[0]
    assert loss(fitted.sharpness_) <= min(loss(fitted.sharpness_ * step), loss(fitted.sharpness_ / step))
    odds = np.exp(fitted.sharpness_ * fitted._scores(X))
    np.testing.assert_allclose(fitted.predict_proba(X), odds / odds.sum(1, keepdims=True), rtol=1e-9)
    np.testing.assert_array_equal(fitted.classes_[fitted.predict_proba(X).argmax(1)], fitted.predict(X))


@pytest.mark.parametrize(("features", "classes", "strength"), [(6, 2, 1.0), (6, 2, 0.01), (6, 4, 0.01), (80, 3, 1.0)])
def test_logistic_minimises_the_objective_of_scikit_learn(features, classes, strength):
    """Half the squared norm of the weights plus C times the cross-entropies has no slope at the fit, in float64 and by hand."""
    train = blobs(0, features=features, classes=classes)
    X = StandardScaler().fit_transform(train.features.astype(np.float64))
    fitted = CrossValidatedLogisticRegression((strength,)).fit(X, train.labels)
    assert strength == fitted.C_
    shift = fitted.decision_function(np.zeros((1, features)))
    weights = fitted.decision_function(np.eye(features)) - shift  # logits are linear
    assert weights.shape == ((features,) if classes == 2 else (features, classes))
    logits = X @ weights + shift
    odds = np.exp(np.stack([np.zeros(60), logits], 1) if classes == 2 else logits)
    probabilities = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(X), probabilities, rtol=1e-9)
    errors = probabilities - (train.labels[:, None] == fitted.classes_)
    slope = weights + strength * X.T @ (errors[:, 1] if classes == 2 else errors)
    np.testing.assert_allclose(slope, 0, atol=1e-3 * np.abs(weights).max())
    np.testing.assert_allclose(errors.sum(0), 0, atol=1e-3)  # the intercepts are not penalised


def test_strength_is_chosen_in_the_folds():
    """Noise in many features asks for a strong penalty, a clean feature for a weak one."""
    noisy, clean = blobs(0, cases=60, features=200, spread=3.0), blobs(0, cases=60, spread=0.01)
    assert CrossValidatedLogisticRegression().fit(clean.features, clean.labels).train_accuracy_ == 1
    assert 0 <= CrossValidatedLogisticRegression().fit(noisy.features, noisy.labels).train_accuracy_ < 0.9


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_cases_are_those_of_scikit_learn(metric):
    rng = np.random.default_rng(0)
    cases, queries = rng.normal(size=(50, 7)), rng.normal(size=(1100, 7))
    reference = KNeighborsClassifier(4, metric=metric, algorithm="brute").fit(cases, np.zeros(50))
    distances, places = reference.kneighbors(queries)
    np.testing.assert_array_equal(nearest(queries, cases, count=4, metric=metric), places)
    if metric == "euclidean":
        np.testing.assert_allclose(nearest_distances(queries, cases, count=4), distances, atol=1e-6)
    np.testing.assert_array_equal(
        nearest(cases, cases, count=3, metric=metric, exclude_self=True), reference.kneighbors(n_neighbors=3, return_distance=False)
    )


def test_votes_that_are_equal_go_to_the_nearer():
    np.testing.assert_array_equal(vote(np.array([[2, 1, 1], [2, 1, 0], [0, 1, 1], [1, 0, 2]]), 3), [1, 2, 1, 1])
    np.testing.assert_array_equal(vote(np.array([[0, 1, 1, 0, 2], [1, 0, 0, 1, 1]]), 3), [0, 1])


def test_neighbours_choose_their_number_and_metric_in_the_training_split():
    rng = np.random.default_rng(0)
    angle = rng.permutation(np.linspace(0, np.pi, 200))
    labels = (angle > np.pi / 2).astype(int)
    radius = rng.lognormal(0, 3, 200)  # the direction tells, the length does not
    X = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert LeaveOneOutNeighbours().fit(X, labels).metric_ == "cosine"
    flipped = np.where(rng.random(200) < 0.25, 1 - labels, labels)
    assert LeaveOneOutNeighbours().fit(X, flipped).count_ > 1


def test_no_test_case_has_a_part_in_a_fit():
    train, test = blobs(0), blobs(1)
    for name in PROBES:
        alone = make_probe(name).fit(train.features, train.labels).predict(test.features[:1])
        assert make_probe(name).fit(train.features, train.labels).predict(test.features)[0] == alone[0]


def test_folds_are_stratified_and_take_any_class():
    codes = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [1, 3, 9, 20]))
    dealt = stratified_folds(codes, folds=3)
    for code in range(4):
        counts = np.bincount(dealt[codes == code], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(dealt)) <= 1


def test_cross_validation_passes_over_folds_that_leave_one_class():
    train = FeatureSet(np.arange(4.0)[:, None], np.array(["a", "a", "a", "b"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 <= cross_validated_accuracy("ridge", train) <= 1


@pytest.mark.parametrize(("probe", "scaler", "message"), [("svm", "none", "probe 'svm' is unknown"), ("ridge", "max", "scaler 'max'")])
def test_unknown_names_are_rejected(probe, scaler, message):
    with pytest.raises(InputError, match=message):
        probe_metrics(probe, blobs(0), blobs(1), scaler=scaler)


def test_a_single_class_is_rejected():
    train = blobs(0)
    with pytest.raises(InputError, match="every training case has the label 'class 0'"):
        probe_metrics("ridge", FeatureSet(train.features, np.full(60, "class 0")), train)
