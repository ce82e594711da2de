import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from nutime_jax.data.point_anomaly import PointAnomalyRecord, PointAnomalySeries, read_point_anomaly_series
from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import FeatureSet
from nutime_jax.evaluation.protocols import point_anomaly
from nutime_jax.evaluation.protocols.anomaly import DETECTORS, anomaly_metrics, most_frequent, score_cases, score_held_out
from nutime_jax.evaluation.protocols.point_anomaly import PointScores, point_metrics
from tests.conftest import SHARED
from tests.encoders import smoke_encoder


def bearings(seed, *, sound=60, faulty=12, distance=6.0):
    """Sound cases around the origin, faulty ones away from it."""
    rng = np.random.default_rng(seed)
    labels = np.array(["sound"] * sound + ["faulty"] * faulty)
    features = rng.normal(size=(sound + faulty, 5))
    features[labels == "faulty"] += distance
    return FeatureSet(features.astype(np.float32), labels)


@pytest.mark.parametrize("detector", DETECTORS)
def test_detectors_find_what_is_there_and_nothing_where_nothing_is(detector):
    metrics = anomaly_metrics(bearings(0), bearings(1), detector=detector)
    assert metrics["roc_auc"] > 0.98
    assert metrics["auc_pr"] > 0.95
    assert metrics["f1"] > 0.7
    assert metrics["outliers"] == pytest.approx(1 / 6)
    blind = anomaly_metrics(bearings(0), bearings(1, sound=300, faulty=60, distance=0.0), detector=detector)
    assert abs(blind["roc_auc"] - 0.5) < 0.12
    assert blind["auc_pr"] < 0.3


@pytest.mark.parametrize("detector", DETECTORS)
def test_outliers_in_the_training_split_and_test_labels_change_no_score(detector):
    train, test = bearings(0), bearings(1)
    moved = FeatureSet(np.where((train.labels == "faulty")[:, None], -50, train.features), train.labels)
    assert anomaly_metrics(moved, test, detector=detector) == anomaly_metrics(train, test, detector=detector)


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_threshold_leaves_the_share_of_normal_cases_that_it_says(detector):
    train, test = bearings(0, sound=400), bearings(1, sound=2000)
    known = train.features[train.labels == "sound"].astype(np.float64)
    threshold = np.quantile(score_held_out(known, detector=detector), 0.9)
    alarms = score_cases(known, test.features[test.labels == "sound"], detector=detector) > threshold
    assert abs(alarms.mean() - 0.1) < 0.04


def test_scores_are_those_of_scikit_learn():
    train, test = bearings(0), bearings(1, distance=1.0)
    known = train.features[:60].astype(np.float64)
    mean, std = known.mean(0), known.std(0)
    distances = np.linalg.norm((test.features - mean)[:, None] / std - ((known - mean) / std)[None], axis=2)
    scores, outlying = np.sort(distances, axis=1)[:, :5].mean(1), test.labels == "faulty"
    np.testing.assert_allclose(score_cases(known, test.features, detector="knn"), scores, atol=1e-6)
    metrics = anomaly_metrics(train, test)
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(outlying, scores))
    assert metrics["auc_pr"] == pytest.approx(average_precision_score(outlying, scores))


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("kind", ["two cases", "constant", "one feature"])
def test_odd_sets_have_scores(detector, kind):
    train, test = bearings(0), bearings(1)
    if kind == "two cases":
        train = FeatureSet(train.features[[0, 1, 70]], train.labels[[0, 1, 70]])
    if kind == "constant":
        train, test = (FeatureSet(np.ones_like(one.features), one.labels) for one in (train, test))
    if kind == "one feature":
        train, test = (FeatureSet(one.features[:, :1], one.labels) for one in (train, test))
    assert all(0 <= value <= 1 for value in anomaly_metrics(train, test, detector=detector).values())


def test_the_most_frequent_class_is_normal_unless_one_is_named():
    assert most_frequent(np.array(["b", "c", "a", "c"])) == "c"
    assert most_frequent(np.array(["b", "a"])) == "a"
    assert anomaly_metrics(bearings(0), bearings(1), normal="faulty")["outliers"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normal": "lost"}, "class 'lost' has 0 normal training cases"),
        ({"detector": "svm"}, "detector 'svm' is unknown"),
        ({"quantile": 1.0}, "quantile 1.0 is not between"),
    ],
)
def test_what_cannot_be_scored_is_rejected(options, message):
    with pytest.raises(InputError, match=message):
        anomaly_metrics(bearings(0), bearings(1), **options)


@pytest.mark.parametrize(("options", "message"), [({"sound": 0}, "no normal cases"), ({"faulty": 0}, "only normal cases")])
def test_test_splits_of_one_kind_are_rejected(options, message):
    with pytest.raises(InputError, match=message):
        anomaly_metrics(bearings(0), bearings(1, **options))


def record(seed, *, points=2000, spikes=(500, 1300), width=6):
    """A daily wave with noise, and short bursts that are labelled."""
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(points) / 15) + 0.1 * rng.normal(size=points)
    labels = np.zeros(points, bool)
    for spike in spikes:
        labels[spike : spike + width] = True
        values[spike : spike + width] += 4 * (-1) ** np.arange(width)
    return PointAnomalyRecord(values.astype(np.float32), labels)


WATCHED = PointAnomalySeries("pump", record(0), record(1, spikes=(200, 900, 1700)))


@pytest.fixture(scope="module")
def encoder():
    return smoke_encoder()


def test_every_scorer_beats_a_blind_one(encoder):
    scorers = {
        "residual": point_anomaly.residual_scores(WATCHED),
        "zscore": point_anomaly.zscore_scores(WATCHED),
        "encoder": point_anomaly.encoder_scores(WATCHED, encoder=encoder, local=None),
        "both": point_anomaly.encoder_scores(WATCHED, encoder=encoder),
    }
    for name, scores in scorers.items():
        assert [one.shape for one in scores] == [(2000,), (2000,)], name
        metrics = point_metrics(scores, WATCHED)
        assert metrics["auc_pr"] > 10 * metrics["anomalies"], name
        assert metrics["f1"] > 0.15, name
        assert metrics["f1_adjusted"] >= metrics["f1"], name


def test_scores_do_not_depend_on_test_labels(encoder):
    unlabelled = PointAnomalySeries("pump", WATCHED.train, PointAnomalyRecord(WATCHED.test.values, np.zeros(2000, bool)))
    for one, other in zip(*(point_anomaly.encoder_scores(series, encoder=encoder) for series in (WATCHED, unlabelled)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_scores_have_a_high_point_adjusted_f1():
    """The flaw: two segments of 1,000 points in 10,000, and one alarm in a hundred points, at random."""
    labels = np.zeros(10_000, bool)
    labels[2000:3000] = labels[6000:7000] = True
    alarms = np.random.default_rng(0).random(10_000) > 0.99
    assert point_anomaly.point_f1(alarms, labels)[2] < 0.05
    assert point_anomaly.point_f1(point_anomaly.point_adjust(alarms, labels), labels)[2] > 0.95


def test_alarms_are_adjusted_by_segment():
    labels = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    alarms = np.array([0, 1, 0, 0, 1, 0, 0, 0], bool)
    np.testing.assert_array_equal(point_anomaly.point_adjust(alarms, labels), np.array([1, 1, 0, 0, 1, 0, 0, 0], bool))


def test_thresholds_have_the_best_f1_of_all():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.2
    scores = np.round(rng.normal(size=200) + labels, 1)  # with ties
    best = max(f1_score(labels, scores > value - 1e-9) for value in np.unique(scores))
    found = point_anomaly.point_f1(scores > point_anomaly.choose_threshold(scores, labels), labels)
    assert found[2] == pytest.approx(best)
    assert point_anomaly.choose_threshold(scores, np.zeros(200, bool)) == np.quantile(scores, point_anomaly.QUANTILE)


def test_the_threshold_comes_from_the_half_that_is_named():
    scores = PointScores(*(half.labels + 0.0 for half in (WATCHED.train, WATCHED.test)))
    assert point_metrics(scores, WATCHED)["f1"] == 1
    shifted = PointScores(scores.train, scores.test - 5)
    assert point_metrics(shifted, WATCHED)["f1"] == 0
    assert point_metrics(shifted, WATCHED)["precision"] == 0
    assert point_metrics(shifted, WATCHED, selection="test")["f1"] == 1


@pytest.mark.parametrize(("points", "window", "stride"), [(100, 32, 8), (101, 32, 32), (32, 32, 1)])
def test_every_point_is_in_a_window_and_has_their_mean(points, window, stride):
    starts = point_anomaly.window_starts(points, window=window, stride=stride)
    scores = np.random.default_rng(0).random(len(starts))
    inside = (np.arange(points)[:, None] >= starts) & (np.arange(points)[:, None] < starts + window)
    assert inside.any(1).all()
    expected = (inside * scores).sum(1) / inside.sum(1)
    np.testing.assert_allclose(point_anomaly.window_to_point_scores(scores, starts, window=window, points=points), expected, atol=1e-12)


def test_moving_zscores_are_those_of_their_definition():
    """Each point against the 16 before it, in float64; running sums agree to 1e-8 here."""
    scores, values = point_anomaly.zscore_scores(WATCHED, window=16).test, WATCHED.test.values.astype(np.float64)
    for place in (1, 5, 16, 900, 1999):
        before = values[max(place - 16, 0) : place]
        floor = 1e-3 * WATCHED.train.values.std(dtype=np.float64)
        assert scores[place] == pytest.approx(abs(values[place] - before.mean()) / max(before.std(), floor), rel=1e-6)


def test_constant_series_have_scores(encoder):
    train, test = (PointAnomalyRecord(np.ones(200, np.float32), labels) for labels in (np.zeros(200, bool), np.arange(200) == 9))
    flat = PointAnomalySeries("flat", train, test)
    for scores in (
        point_anomaly.residual_scores(flat),
        point_anomaly.zscore_scores(flat),
        point_anomaly.encoder_scores(flat, encoder=encoder),
    ):
        assert all(np.isfinite(one).all() for one in scores)
        assert point_metrics(scores, flat)["f1"] < 0.1


def test_what_cannot_be_watched_is_rejected(encoder):
    quiet = PointAnomalySeries("quiet", record(0), record(1, spikes=()))
    scores = point_anomaly.residual_scores(quiet)
    with pytest.raises(InputError, match="series quiet has no anomaly in its test half"):
        point_metrics(scores, quiet)
    with pytest.raises(InputError, match="selection 'best' is unknown"):
        point_metrics(scores, WATCHED, selection="best")
    for options, message in (
        ({"window": 4000}, "2000 points has no window of 4000"),
        ({"stride": 40}, "leave gaps"),
        ({"window": 600, "stride": 400}, "no windows to compare"),
        ({"window": 2000, "stride": 1}, "no training window without anomaly"),
    ):
        with pytest.raises(InputError, match=message):
            point_anomaly.encoder_scores(WATCHED, encoder=encoder, **options)


def arrays(**changes):
    one = {"values": np.arange(6, dtype=np.float32), "labels": np.array([0, 0, 1, 0, 1, 1]), "offsets": np.array([0, 2, 6])}
    return {**{f"{half}_{name}": array for half in ("train", "test") for name, array in one.items()}, **changes}


def test_monitored_series_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(names=np.array(["x", "y"])))
    x, y = read_point_anomaly_series(tmp_path / "a.npz")
    assert (x.name, y.name) == ("x", "y")
    np.testing.assert_array_equal(y.test.values, [2, 3, 4, 5])
    np.testing.assert_array_equal(y.test.labels, [True, False, True, True])
    np.savez(tmp_path / "a.npz", **arrays())
    assert [one.name for one in read_point_anomaly_series(tmp_path / "a.npz")] == ["0", "1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_values": np.array([0, 1, np.nan, 3, 4, 5])}, "train_values holds values that are missing"),
        ({"test_labels": np.arange(6)}, "test_labels holds other values than 0"),
        ({"test_labels": np.zeros(5)}, "should be flat, of one length"),
        ({"test_offsets": np.array([0, 4])}, "increase from 0 to 6"),
        ({"test_offsets": np.array([0, 4, 4, 6])}, "do not increase"),
        ({"test_offsets": np.array([0, 6])}, "2 series in train, 1 in test"),
        ({"names": np.array(["x"])}, "and 1 names"),
    ],
)
def test_monitored_series_that_do_not_fit_are_rejected(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(InputError, match=message):
        read_point_anomaly_series(tmp_path / "a.npz")


def test_files_without_monitored_series_are_rejected(tmp_path):
    (tmp_path / "a.npz").write_text("no file of arrays")
    with pytest.raises(InputError, match=r"a\.npz cannot be read"):
        read_point_anomaly_series(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", train_values=np.zeros(3))
    with pytest.raises(InputError, match="has no array train_labels"):
        read_point_anomaly_series(tmp_path / "b.npz")


def test_kpi_is_read_and_scored():
    path = SHARED / "data" / "anomaly" / "KPI.npz"
    if not path.is_file():
        pytest.skip("the KPI series are not on this machine")
    series = read_point_anomaly_series(path)
    assert len(series) == 12
    assert sum(len(one.train.values) for one in series) == 1_425_300
    shortest = min(series, key=lambda one: len(one.test.values))
    metrics = point_metrics(point_anomaly.residual_scores(shortest), shortest)
    assert metrics["auc_pr"] > 5 * metrics["anomalies"]
