import datetime
import pickle
import pickletools
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nutime_jax.config import TuningSettings
from nutime_jax.errors import InputError
from nutime_jax.estimators import NuTimeAnomalyDetector, NuTimeClassifier, NuTimeClusterer, NuTimeTransformer
from nutime_jax.estimators import base as bases
from nutime_jax.evaluation.protocols.anomaly import DETECTORS, score_cases
from nutime_jax.evaluation.protocols.clustering import find_clusters
from nutime_jax.evaluation.protocols.probes import PROBES, make_probe
from tests.encoders import smoke_encoder
from tests.stub import make_stub

ROOT = Path(__file__).parents[2]
ENCODER = make_stub()
REAL = smoke_encoder()
"""Where the encoder itself counts: it is compiled, pickled or trained."""
TUNED = {"epochs": 2, "learning_rates": (1e-2,), "random_state": 0}


def waves(seed=0, *, cases=16, channels=1, length=60):
    """Two classes of sines, of other frequencies and levels; (cases, channels, length), codes."""
    rng = np.random.default_rng(seed)
    codes = np.arange(cases) % 2
    time = np.arange(length) + rng.uniform(0, 9, (cases, channels, 1))
    return np.sin(time / (2 + 3 * codes[:, None, None])) + codes[:, None, None] + 0.1 * rng.normal(size=time.shape), codes


X, CODES = waves()
KINDS = {
    "transformer": NuTimeTransformer(ENCODER),
    "probe": NuTimeClassifier(ENCODER),
    "clusterer": NuTimeClusterer(ENCODER, n_clusters=2, random_state=0),
    "detector": NuTimeAnomalyDetector(ENCODER),
    "embedder": NuTimeTransformer(REAL),
    "head": NuTimeClassifier(REAL, strategy="head", **TUNED),
    "full": NuTimeClassifier(REAL, strategy="full", **TUNED),
    "average": NuTimeClassifier(REAL, strategy="average", **TUNED),
}


TABLES = ("transformer", "embedder")
"""Fitted on a table, the others on a collection."""


def outcome(estimator, series):
    return next(
        getattr(estimator, name)(series) for name in ("predict_proba", "score_samples", "transform", "predict") if hasattr(estimator, name)
    )


@pytest.fixture(scope="module")
def fitted():
    """One of every kind, fitted on a collection; the transformer on a table."""
    return {name: clone(one).fit(X[:, 0] if name in TABLES else X, CODES) for name, one in KINDS.items()}


class Training(NamedTuple):
    labels: np.ndarray
    options: dict


@pytest.fixture
def trainings(monkeypatch):
    """What fine-tuning is called with, which is not done."""
    called = []

    def train(encoder, cases, **options):
        called.append(Training(cases.labels, options))
        raise InterruptedError

    monkeypatch.setattr("nutime_jax.finetuning.loop.fine_tune", train)
    return called


@pytest.mark.parametrize("name", KINDS)
def test_a_pickle_holds_arrays_alone_and_predicts_the_same_elsewhere(fitted, name, tmp_path):
    estimator, expected = fitted[name], outcome(fitted[name], X[:, 0] if name in TABLES else X)
    content = pickle.dumps(estimator)
    words = {str(argument) for _, argument, _ in pickletools.genops(content) if isinstance(argument, str)}
    assert not {word for word in words if word.split(".")[0] in ("jax", "jaxlib", "flax")}
    np.testing.assert_array_equal(outcome(pickle.loads(content), X[:, 0] if name in TABLES else X), expected)
    joblib.dump(estimator, tmp_path / name)
    np.testing.assert_array_equal(outcome(joblib.load(tmp_path / name), X[:, 0] if name in TABLES else X), expected)


@pytest.mark.slow
def test_pickles_predict_in_another_process(fitted, tmp_path):
    names = ["embedder", "head"]
    for name in names:
        (joblib.dump if name == "head" else lambda one, path: Path(path).write_bytes(pickle.dumps(one)))(fitted[name], tmp_path / name)
    np.save(tmp_path / "X.npy", X[:, 0])
    code = f"""
import joblib, numpy as np, pickle
X, found = np.load("X.npy"), {{}}
for name in {names}:
    one = joblib.load(name) if name == "head" else pickle.load(open(name, "rb"))
    found[name] = next(getattr(one, m)(X) for m in ("predict_proba", "score_samples", "transform", "predict") if hasattr(one, m))
np.savez("found.npz", **found)
"""
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path, env=environment)
    with np.load(tmp_path / "found.npz") as found:
        for name in names:  # one device there, eight here: another program, so that the last bits differ
            np.testing.assert_allclose(found[name], outcome(fitted[name], X[:, 0]), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["embedder", "head", "full"])
def test_a_second_fit_compiles_nothing(fitted, name):
    first, compiled = fitted[name], []
    outcome(first, X[:, 0])
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else 0
    )
    try:
        again = clone(first).fit(waves(1)[0][:, 0], CODES)
        outcome(again, X[:, 0])
    finally:
        jax.monitoring.clear_event_listeners()
    assert compiled == []


@pytest.mark.parametrize("name", KINDS)
def test_the_same_random_state_gives_the_same(fitted, name):
    table = X[:, 0] if name in TABLES else X
    np.testing.assert_array_equal(outcome(clone(fitted[name]).fit(table, CODES), table), outcome(fitted[name], table))


def test_another_random_state_gives_another_network(fitted):
    other = clone(fitted["head"]).set_params(random_state=np.random.RandomState(5)).fit(X, CODES)
    assert np.abs(outcome(other, X) - outcome(fitted["head"], X)).max() > 0


LABELS = {
    "text": np.array(["no", "yes"]),
    "whole numbers": np.array([7, -2]),
    "small numbers": np.array([3, 4], np.uint8),
    "whole floats": np.array([1.0, 2.0]),
    "booleans": np.array([False, True]),
    "objects": np.array(["b", "a"], object),
    "dates": np.array([datetime.date(2020, 1, 1), datetime.date(2019, 1, 1)], object),
    "times": np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_back_as_they_were_given(kind):
    labels = LABELS[kind][CODES]
    classifier = NuTimeClassifier(ENCODER).fit(X, labels)
    predicted = classifier.predict(X)
    assert predicted.dtype == classifier.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(predicted, labels)
    assert classifier.classes_.tolist() == sorted(LABELS[kind].tolist())


def test_labels_of_frames_and_lists_come_back():
    for labels in (["b", "a"] * 8, pd.Series(["b", "a"] * 8), pd.Series(["b", "a"] * 8, dtype="category", index=range(5, 21))):
        assert NuTimeClassifier(ENCODER).fit(X, labels).predict(X[:2]).tolist() == ["b", "a"]


def test_labels_are_trained_on_in_their_order(trainings):
    """Fine-tuning takes text, of which "10" comes before "2"."""
    labels = np.arange(24) % 12 * 10 - 5
    with pytest.raises(InterruptedError):
        NuTimeClassifier(ENCODER, strategy="full").fit(X[[0] * 24], labels)
    np.testing.assert_array_equal(np.unique(trainings[0].labels, return_inverse=True)[1], np.arange(24) % 12)


@pytest.mark.parametrize("name", ["embedder", "head"])
def test_one_set_in_every_form_gives_one_result(fitted, name):
    estimator = fitted[name]
    expected = outcome(estimator, X[:, 0])
    frame = pd.DataFrame(X[:, 0])
    forms = [X, list(X), list(X[:, 0]), X[:, 0].tolist(), tuple(X[:, 0]), frame, X.astype(object), [pd.Series(one) for one in X[:, 0]]]
    ragged = np.empty(len(X), object)
    ragged[:] = list(X[:, 0])
    for form in [*forms, ragged, np.asfortranarray(X)]:
        np.testing.assert_array_equal(outcome(estimator, form), expected)


def test_long_frames_and_frames_with_more_than_points_are_collections(fitted):
    wide = pd.DataFrame(X[:, 0]).rename(columns=str)
    expected = fitted["probe"].predict_proba(X)
    long = wide.assign(id=range(16)).melt("id", var_name="time", value_name="a").astype({"time": int})
    labelled = wide.assign(label=CODES)
    for frame in (long, long.set_index(["id", "time"]), labelled, wide.rename_axis("case")):
        np.testing.assert_array_equal(fitted["probe"].predict_proba(frame), expected)
    assert not hasattr(NuTimeTransformer(ENCODER).fit(labelled), "n_features_in_")


@pytest.mark.parametrize("name", ["transformer", "probe", "clusterer", "detector", "embedder", "head"])
def test_any_length_scale_and_missing_value_is_taken(fitted, name):
    holes = X[:4].copy()
    holes[:, :, :7], holes[:, :, 20:24], holes[1, :, 30::3] = np.nan, np.nan, np.nan
    series = [X[0], X[1, 0, :9], np.concatenate([X[2], X[3]], 1), 1e12 * X[4], 1e-12 * X[5], [3.5], np.full(9, 2), *holes]
    found = outcome(fitted[name], series)
    assert len(found) == len(series)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:1], outcome(fitted[name], X[:1]), rtol=1e-12)
    clone(fitted[name]).fit(series, np.arange(len(series)) % 2)


def test_several_channels_are_taken_side_by_side_or_on_average():
    many, codes = waves(channels=3)
    alone = NuTimeTransformer(ENCODER).fit(many[:, 0]).transform(many[:, 0])
    beside = NuTimeTransformer(ENCODER).fit(many).transform(many)
    np.testing.assert_array_equal(beside[:, : alone.shape[1]], alone)
    mean = NuTimeTransformer(ENCODER, channels="mean").fit_transform(many)
    np.testing.assert_allclose(mean, beside.reshape(len(many), 3, -1).mean(1), atol=1e-6)
    classifier = NuTimeClassifier(ENCODER).fit(many, codes)
    assert (classifier.n_channels_in_, hasattr(classifier, "n_features_in_")) == (3, False)
    assert classifier.score(many, codes) == 1


def test_a_table_keeps_its_columns_and_a_collection_need_not(fitted):
    transformer = NuTimeTransformer(ENCODER).fit(pd.DataFrame(X[:, 0]).rename(columns=str))
    assert transformer.n_features_in_ == len(transformer.feature_names_in_) == 60
    with pytest.raises(InputError, match=r"X has 50 features, but NuTimeTransformer is expecting 60 .* as a list of arrays"):
        transformer.transform(X[:, 0, :50])
    assert transformer.transform(X[:, :, :50]).shape == transformer.transform(list(X[:, 0, :50])).shape == (16, 32)
    assert len(fitted["probe"].predict(X[:, 0, :50])) == 16  # fitted on a collection
    assert not hasattr(transformer.fit(X), "feature_names_in_")


def test_features_are_those_of_the_encoder_and_depend_on_no_other_case():
    transformer = NuTimeTransformer(REAL, layer=0, pooling="cls").fit(X)
    np.testing.assert_allclose(transformer.transform(X), REAL.embed(X, layer=0, pooling="cls"), atol=1e-6)
    for size in (3, 32):
        transformer = NuTimeTransformer(REAL, batch_size=size).fit(X)
        whole = transformer.transform(X)
        np.testing.assert_array_equal(np.concatenate([transformer.transform(X[i : i + 1]) for i in range(4)]), whole[:4])
        np.testing.assert_array_equal(transformer.transform(X[::-1])[::-1], whole)


def test_features_have_names_and_come_as_a_frame():
    transformer = NuTimeTransformer(ENCODER).fit(X)
    assert transformer.get_feature_names_out().tolist() == [f"nutimetransformer{i}" for i in range(32)]
    frame = transformer.set_output(transform="pandas").transform(pd.DataFrame(X[:, 0], index=range(3, 19)))
    assert (frame.shape, frame.index[0], frame.columns[31]) == ((16, 32), 3, "nutimetransformer31")


@pytest.mark.parametrize("probe", PROBES)
def test_probes_are_those_of_the_evaluation(probe):
    features = NuTimeTransformer(ENCODER).fit_transform(X)
    expected = make_probe(probe).fit(features, CODES)
    classifier = NuTimeClassifier(ENCODER, probe=probe).fit(X, CODES)
    others = waves(1)[0]
    features = NuTimeTransformer(ENCODER).fit(X).transform(others)
    np.testing.assert_array_equal(classifier.predict(others), expected.predict(features))
    for method in ("predict_proba", "decision_function"):
        assert hasattr(classifier, method) == hasattr(expected[-1], method) == hasattr(clone(classifier), method)
    if hasattr(classifier, "decision_function"):
        np.testing.assert_array_equal(classifier.decision_function(others) > 0, classifier.predict(others))
    if hasattr(classifier, "predict_proba"):
        np.testing.assert_allclose(classifier.predict_proba(others).sum(1), 1)
        np.testing.assert_array_equal(classifier.predict_proba(others).argmax(1), classifier.predict(others))


def test_settings_reach_the_training(trainings):
    options = {"learning_rates": [1e-3, 1e-2], "epochs": 3, "ensemble_size": 2, "patience": 1, "validation_fraction": 0.25}
    with pytest.raises(InterruptedError):
        NuTimeClassifier(ENCODER, strategy="head", random_state=3, **options).fit(X, CODES)
    expected = TuningSettings(strategy="head", learning_rates=(1e-3, 1e-2), epochs=3, ensemble_size=2, patience=1, validation_fraction=0.25)
    assert trainings[0].options["settings"] == expected
    assert isinstance(trainings[0].options["seed"], int)
    with pytest.raises(InterruptedError):
        NuTimeClassifier(ENCODER, strategy="full").fit(X, CODES)
    assert trainings[1].options["settings"] == TuningSettings()  # whose defaults are the estimator's


def test_fine_tuning_offers_probabilities(fitted):
    for name in ("head", "full", "average"):
        assert hasattr(fitted[name], "predict_proba")
        assert not hasattr(fitted[name], "decision_function")
        np.testing.assert_allclose(fitted[name].predict_proba(X).sum(1), 1, atol=1e-6)
        np.testing.assert_array_equal(fitted[name].predict_proba(X).argmax(1), fitted[name].predict(X))


def test_the_average_is_that_of_network_and_probe(fitted):
    parts = [fitted["full"], NuTimeClassifier(REAL).fit(X, CODES)]
    expected = np.mean([one.predict_proba(X) for one in parts], axis=0)
    np.testing.assert_allclose(fitted["average"].predict_proba(X), expected, atol=2e-5)


def test_a_fit_forgets_the_one_before():
    classifier = clone(KINDS["head"]).fit(X, CODES).set_params(strategy="probe").fit(X[:, 0], np.array(["a", "b"])[CODES])
    assert not hasattr(classifier, "classifier_")
    assert classifier.predict(X[:2, 0]).tolist() == ["a", "b"]
    with pytest.raises(InputError):
        classifier.fit(X, CODES[:-1])
    with pytest.raises(NotFittedError):
        classifier.predict(X)


def test_clusters_are_those_of_the_evaluation(fitted):
    features = NuTimeTransformer(ENCODER).fit_transform(X)
    clusterer = fitted["clusterer"]
    assert set(clusterer.labels_) == {0, 1}
    assert len(set(zip(clusterer.labels_, find_clusters(features, 2), strict=True))) == 2
    np.testing.assert_array_equal(clusterer.predict(X), clusterer.labels_)
    np.testing.assert_array_equal(clone(clusterer).fit_predict(X), clusterer.labels_)
    assert clusterer.inertia_ > 0


@pytest.mark.parametrize("detector", DETECTORS)
def test_what_is_far_is_an_anomaly(detector):
    normal, strange = waves(cases=40)[0][::2], waves(cases=40)[0][1::2]
    found = NuTimeAnomalyDetector(ENCODER, detector=detector, quantile=0.9).fit(normal[:15])
    rest = np.concatenate([normal[15:], strange])
    features = NuTimeTransformer(ENCODER).fit(X).transform(rest)
    np.testing.assert_allclose(found.score_samples(rest), -score_cases(found.reference_features_, features, detector=detector))
    assert roc_auc_score(np.arange(25) >= 5, -found.decision_function(rest)) > 0.95
    assert (found.predict(strange) == -1).mean() > 0.9
    np.testing.assert_array_equal(found.predict(rest) < 0, found.decision_function(rest) < 0)


def test_pipelines_searches_and_folds():
    pipeline = make_pipeline(NuTimeTransformer(ENCODER), StandardScaler(), LogisticRegression())
    assert cross_val_score(pipeline, X, CODES, cv=2).mean() == 1
    grid = {"nutimetransformer__pooling": ["cls", "cls+mean"], "logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(list(X), CODES)
    assert len(search.cv_results_["params"]) == 4
    assert search.predict([X[0], X[1, :, :30]]).tolist() == [0, 1]
    search = GridSearchCV(NuTimeClassifier(ENCODER), {"probe": ["ridge", "1nn"], "layer": [0, None]}, cv=2).fit(X[:, 0], CODES)
    assert search.best_score_ == 1
    with pytest.raises(InputError, match="probe 'svm' is unknown"):
        GridSearchCV(NuTimeClassifier(ENCODER), {"probe": ["svm"]}, cv=2, error_score="raise").fit(X, CODES)


def test_encoders_are_found_by_name(monkeypatch):
    named = []
    monkeypatch.setattr("nutime_jax.estimators.base.load_encoder", lambda where: named.append(where) or ENCODER)
    for where in ("nutime-small", Path("runs/mine")):
        assert NuTimeTransformer(where).fit(X).transform(X).shape == (16, 32)
    assert named == ["nutime-small", Path("runs/mine")]
    assert NuTimeTransformer().encoder == "nutime-small"
    assert isinstance(bases.open_encoder("nutime-small").variables["params"]["cls"], np.ndarray)
    assert len(repr(NuTimeTransformer(ENCODER))) < 200


def test_input_is_left_alone(fitted):
    for name in ("transformer", "probe", "detector"):
        series, labels = np.where(X < -0.8, np.nan, X), CODES.copy()
        before = series.copy()
        outcome(clone(fitted[name]).fit(series, labels), series)
        np.testing.assert_array_equal(series, before)
        np.testing.assert_array_equal(labels, CODES)


def changed(place, value, series=X):
    copy = series.astype(np.asarray(value).dtype if np.iscomplexobj(value) else np.float64)
    copy[place] = value
    return copy


SERIES = {
    "a single series": (X[0, 0], "X has shape (60,); pass (cases, time)"),
    "a number": (np.float64(3), "X has shape (); pass (cases, time)"),
    "four axes": (X[None], "X has shape (1, 16, 1, 60); pass (cases, time)"),
    "no case": (X[:0], "X has no series (0 sample(s)); pass one or more"),
    "no row": (X[:0, 0], "X has no series (0 sample(s)); pass one or more"),
    "an empty list": ([], "X has no series (0 sample(s)); pass one or more"),
    "no point": (X[:, :, :0], "X has 0 feature(s)"),
    "no point in a table": (X[:, 0, :0], "X has 0 feature(s) (shape=(16, 0)) while a minimum of 1 is required"),
    "an empty case": ([X[0], X[1, :, :0]], "case 1 has no value that is not missing; remove it"),
    "an infinite value": (changed((3, 0, 5), np.inf), "case 3 has infinite values"),
    "an infinite value of a table": (changed((3, 5), -np.inf, X[:, 0]), "case 3 has infinite values"),
    "a value beyond float32": (changed((3, 0, 5), 1e300), "case 3 has infinite values or values beyond 3.4e38"),
    "a case without values": (changed(2, np.nan), "case 2 has no value that is not missing; remove it"),
    "complex numbers": (X + 1j, "Complex data not supported: X has complex128 values"),
    "complex numbers in a list": ([X[0], X[1] * 1j], "Complex data not supported: case 1 has complex128"),
    "words": (np.full((16, 4), "a"), "X has <U1 values; convert them to real numbers"),
    "words in a list": (["ab", "cd"], "case 0 is of type str; pass it as an array"),
    "dates": (np.full((16, 4), np.datetime64("2020-01-01")), "X has datetime64[D] values"),
    "objects": (np.full((16, 4), {}, object), "X has objects that are not numbers"),
    "nothings": ([[None] * 60] * 16, "case 0 has no value that is not missing"),
    "words among objects": (np.full((16, 4), "a", object), "X is not an array of numbers"),
    "a string": ("series.csv", "'series.csv' does not exist; pass the path of a .npz, .npy,"),
    "a dictionary": ({"a": X}, "X is of type dict; pass an array"),
    "a set": ({1, 2}, "X is of type set; pass an array"),
    "nothing": (None, "X is None; pass an array"),
    "a generator": (iter(X), "X is of type generator; pass an array"),
    "a sparse matrix": (sparse.csr_matrix(X[:, 0]), "X is sparse, and sparse series are not supported; pass X.toarray()"),
    "a sparse array": (sparse.coo_array(X[:, 0]), "X is sparse"),
    "cases of other channels": ([X[0], np.vstack([X[1], X[1]])], "cases have [1, 2] channels; every case needs the same number"),
    "a case of three axes": ([X[:2], X[:2]], "case 0 has shape (2, 1, 60)"),
    "a frame of words": (pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}), "X, row 1, column 'a': 'x' is not a number"),
    "a frame of complex numbers": (pd.DataFrame(X[:, 0] * 1j), "Complex data not supported: column 0 has complex128"),
    "a frame of no column": (pd.DataFrame(index=range(16)), "X has no column of numbers"),
    "a frame of levels": (pd.DataFrame(X[:, 0]).stack().to_frame().set_index(0, append=True), "X has an index of 3 levels"),
    "an object array of no matrix": (np.array([[1.0, [2.0]], [3.0]], object), "case 0 is not an array of numbers"),
    "a list that is no matrix": ([[1.0, [2.0]], [3.0]], "case 0 is not an array of numbers"),
}
SERIES["a generator"] = ((one for one in X), SERIES["a generator"][1])

LABELLED = {
    "no labels": (None, "the estimator requires y to be passed, but the target y is None; pass one label per case"),
    "too few labels": (CODES[:-1], "X has 16 cases and y has 15 labels; pass one label per case"),
    "too many labels": (np.append(CODES, 1), "X has 16 cases and y has 17 labels; pass one label per case"),
    "empty labels": ([], "X has 16 cases and y has 0 labels; pass one label per case"),
    "one class": (np.zeros(16, int), "y has one class, np.int64(0); a classifier needs cases of two classes or more"),
    "a missing label": (np.where(np.arange(16) == 4, np.nan, CODES), "label 4 of y is missing"),
    "a missing text": (np.array([*"ababababababababab"[:15], None], object), "label 15 of y is missing"),
    "a missing label of a frame": (pd.Series([*"ababababababababab"[:15], None]), "label 15 of y is missing"),
    "a label that is not available": (pd.Series([*[1, 2] * 7, 1, None], dtype="Int64"), "label 15 of y is missing"),
    "an infinite label": (np.where(np.arange(16) == 4, np.inf, CODES), "y holds real numbers (Unknown label type: continuous)"),
    "real numbers": (CODES + 0.5, "y holds real numbers (Unknown label type: continuous); pass classes"),
    "real numbers as objects": ((CODES + 0.5).astype(object), "y holds real numbers"),
    "complex labels": (CODES + 1j, "Complex data not supported: y holds complex numbers"),
    "several columns": (np.stack([CODES, CODES], 1), "y has shape (16, 2); pass one label per case, (cases,)"),
    "a label": (np.int64(1), "y has shape (); pass one label per case, (cases,)"),
    "labels of several kinds": (np.array(["a", 1] * 8, object), "labels in y have types that cannot be sorted"),
}

OPTIONS = {
    "probe": [
        ({"encoder": 3}, "encoder is of type int; pass the name of a shipped encoder, a path, or an Encoder"),
        ({"encoder": None}, "encoder is of type NoneType; pass the name"),
        ({"encoder": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"strategy": "tune"}, "strategy 'tune' is unknown; choose one of probe, head, full, average"),
        ({"strategy": ["head"]}, "strategy ['head'] is unknown; choose one of probe, head, full, average"),
        ({"probe": "svm"}, "probe 'svm' is unknown; choose one of kernel, ridge, logistic, knn, 1nn, forest"),
        ({"probe": LogisticRegression()}, "probe LogisticRegression() is unknown; choose one of"),
        ({"layer": 7}, "layer 7 does not exist; choose 0 to 1, or None"),
        ({"layer": -1}, "layer is -1; pass a whole number of 0 or more"),
        ({"layer": "last"}, "layer is 'last'; pass a whole number of 0 or more"),
        ({"pooling": "max"}, "pooling 'max' is unknown; choose one of cls, mean, cls+mean, all_layers"),
        ({"channels": "none"}, "channels 'none' is unknown; choose one of mean, concat"),
        ({"batch_size": 0}, "batch_size is 0; pass a whole number of 1 or more"),
        ({"batch_size": 2.0}, "batch_size is 2.0; pass a whole number of 1 or more"),
        ({"batch_size": True}, "batch_size is True; pass a whole number of 1 or more"),
    ],
    "head": [
        ({"epochs": 0}, "epochs is 0; choose an integer of 1 or more"),
        ({"epochs": "many"}, "epochs is 'many'; choose an integer of 1 or more"),
        ({"patience": -1}, "patience is -1; choose an integer of 0 or more"),
        ({"ensemble_size": 0}, "ensemble_size is 0; choose an integer of 1 or more"),
        ({"learning_rates": 1e-3}, "learning_rates is 0.001; choose one or more numbers above 0, separated by commas, each once"),
        ({"learning_rates": ("fast",)}, "learning_rates is ('fast',); choose one or more numbers above 0, separated by commas, each once"),
        ({"learning_rates": ()}, "learning_rates is (); choose one or more"),
        ({"learning_rates": (0.0,)}, "learning_rates is (0.0,); choose one or more"),
        ({"learning_rates": (1e-3, 1e-3)}, "learning_rates is (0.001, 0.001); choose one or more"),
        ({"validation_fraction": 0.0}, "validation_fraction is 0.0; pass a number between 0 and 1"),
        ({"validation_fraction": "half"}, "validation_fraction is 'half'; pass a number between 0 and 1"),
        ({"random_state": "lucky"}, "random_state is 'lucky'; pass a whole number"),
        ({"random_state": -1}, "random_state is -1; pass a whole number"),
        ({"encoder": 3}, "encoder is of type int; pass the name"),
    ],
    "clusterer": [
        ({"n_clusters": 0}, "n_clusters is 0; pass a whole number of 1 or more"),
        ({"n_clusters": 17}, "n_clusters is 17 and X has 16 cases; pass more cases, or choose fewer clusters"),
        ({"n_init": "auto"}, "n_init is 'auto'; pass a whole number of 1 or more"),
        ({"random_state": 1.5}, "random_state is 1.5; pass a whole number"),
    ],
    "detector": [
        ({"detector": "forest"}, "detector 'forest' is unknown; choose one of knn, mahalanobis, lof"),
        ({"quantile": 1}, "quantile is 1; pass a number between 0 and 1"),
        ({"quantile": None}, "quantile is None; pass a number between 0 and 1"),
    ],
    "transformer": [({"pooling": 3}, "pooling 3 is unknown; choose one of"), ({"encoder": object}, "encoder is of type type")],
}


def refused(call, message):
    """One sentence without a final full stop: what is wrong, a semicolon, what to do. Users catch ValueError or TypeError."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert message in text
    assert ";" in text
    assert "\n" not in text
    assert not re.search(r"\.(\s|$)", text)
    return caught


@pytest.mark.parametrize("name", ["transformer", "probe", "clusterer", "detector"])
@pytest.mark.parametrize("kind", SERIES)
def test_series_that_are_none_are_rejected(fitted, name, kind):
    series, message = SERIES[kind]
    refused(lambda: clone(KINDS[name]).fit(series, CODES), message)
    refused(lambda: outcome(fitted[name], series), message)


@pytest.mark.parametrize("name", ["probe", "head"])
@pytest.mark.parametrize("kind", LABELLED)
def test_labels_that_are_none_are_rejected(name, kind):
    labels, message = LABELLED[kind]
    refused(lambda: clone(KINDS[name]).fit(X, labels), message)


@pytest.mark.parametrize(("name", "options", "message"), [(name, *one) for name, table in OPTIONS.items() for one in table])
def test_options_that_are_none_are_rejected(name, options, message):
    refused(lambda: clone(KINDS[name]).set_params(**options).fit(X, CODES), message)


def test_too_few_cases_and_other_channels_are_rejected(fitted):
    refused(lambda: clone(KINDS["detector"]).fit(X[:1]), "X has 1 sample; pass two cases or more")
    refused(lambda: clone(KINDS["probe"]).fit(X[:1], CODES[:1]), "y has one class")
    for name, estimator in fitted.items():
        if name not in TABLES:
            refused(
                lambda one=estimator: outcome(one, waves(channels=2)[0]), "cases of X have 2 channels, but were fitted with 1; pass as many"
            )


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_predicted_before_a_fit(name):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        outcome(clone(KINDS[name]), X)
