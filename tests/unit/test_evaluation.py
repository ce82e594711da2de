from dataclasses import replace

import numpy as np
import pytest

from nutime_jax.data.datasets import Cases, find_datasets
from nutime_jax.data.series import split_long_series
from nutime_jax.embedding import resize_series
from nutime_jax.errors import InputError
from nutime_jax.evaluation.comparison import Comparison, compare, difference, format_accuracies, format_difference
from nutime_jax.evaluation.features import FeatureSet, FeatureSpec, Task, encode_cases, raw_features, read_task
from nutime_jax.evaluation.protocols import probes
from nutime_jax.evaluation.results import read_rows, write_rows
from tests import reference
from tests.encoders import smoke_encoder
from tests.stub import make_stub


def blobs(seed, cases=60, spread=0.3):
    """Two classes, told apart by the first of three features."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, cases)
    features = rng.normal(size=(cases, 3))
    features[:, 0] = labels + spread * rng.normal(size=cases)
    return FeatureSet(features, np.array(["a", "b"])[labels])


@pytest.mark.parametrize("probe", ["ridge", "1nn"])
def test_probes_find_what_is_there_and_nothing_where_nothing_is(probe):
    assert probes.probe_metrics(probe, blobs(0, spread=0.05), blobs(1, spread=0.05))["accuracy"] > 0.8
    assert probes.cross_validated_accuracy(probe, blobs(0, spread=0.05)) > 0.8
    train = blobs(0)
    shuffled = FeatureSet(train.features, np.random.default_rng(2).permutation(train.labels))
    assert probes.cross_validated_accuracy(probe, shuffled) < 0.75


def test_probes_do_not_care_for_the_scale_of_a_feature():
    train, test = blobs(0), blobs(1)
    scaled = [FeatureSet(one.features * np.array([1e-6, 1, 1e6]), one.labels) for one in (train, test)]
    for probe in ("ridge", "1nn"):
        assert probes.probe_metrics(probe, train, test)["accuracy"] == probes.probe_metrics(probe, *scaled)["accuracy"]


def test_a_class_of_one_case_can_be_cross_validated():
    train = blobs(0)
    labels = train.labels.copy()
    labels[0] = "alone"
    assert 0.5 < probes.cross_validated_accuracy("ridge", FeatureSet(train.features, labels)) <= 1


def test_a_single_case_a_class_cannot_be_cross_validated():
    with pytest.raises(InputError, match="every class has one case"):
        probes.cross_validated_accuracy("ridge", FeatureSet(np.eye(3), np.array(["a", "b", "c"])))


def test_sets_without_labels_or_tests_are_rejected(tmp_path):
    (tmp_path / "a_TRAIN.csv").write_text("1,2\n3,4\n")
    with pytest.raises(InputError, match="set a has no test split"):
        read_task(find_datasets(str(tmp_path))[0])
    (tmp_path / "a_TEST.csv").write_text("1,2\n")
    with pytest.raises(InputError, match=r"a_TEST\.csv \(test\) has no labels"):
        read_task(find_datasets(str(tmp_path))[0])


def test_an_unknown_probe_is_rejected():
    with pytest.raises(InputError, match="probe 'svm' is unknown"):
        probes.make_probe("svm")


def cases(seed):
    """Noise at two levels, two channels, unequal lengths."""
    rng = np.random.default_rng(seed)
    labels = np.array(["low", "high"] * 8)
    series = []
    for label in labels:
        length = rng.integers(30, 90)
        channel = rng.normal(size=length) + 10 * (label == "high")
        series.append(np.stack([channel, channel[::-1]]).astype(np.float32))
    return Cases(series, labels)


METRICS = ("accuracy", "balanced_accuracy", "f1")


def test_evaluation_fills_every_cell(tmp_path):
    found = compare({"untrained": smoke_encoder()}, Task("levels", cases(0), cases(1)))
    assert [(row.dataset, row.method, row.protocol, row.metric) for row in found.rows] == [
        *(("levels", "untrained", probe, metric) for probe in ("kernel", "1nn") for metric in METRICS),
        *(("levels", "raw_1nn", "baseline", metric) for metric in METRICS),
    ]
    assert found.rows[0].value == found.correct["untrained"].mean() >= 0.9
    assert found.rows[0].setting == "layer=last pooling=cls+mean channels=concat scaler=standard"
    assert (found.rows[0].train_cases, found.rows[0].test_cases) == (16, 16)
    write_rows(found.rows, tmp_path / "results.csv")
    assert read_rows(tmp_path / "results.csv") == found.rows
    table = format_accuracies([found], {"untrained": "untrained", "raw_1nn": "raw"})
    assert table.splitlines()[0].split() == ["dataset", "untrained", "raw"]
    assert table.splitlines()[-1].split()[:3] == ["mean", "of", "1"]


def test_folds_score_every_training_case_once():
    task = Task("levels", cases(0), None)
    found = compare({"e": make_stub()}, task, folds=4, spec=FeatureSpec(channels="mean"))
    rows = [row for row in found.rows if (row.method, row.protocol, row.metric) == ("e", "kernel", "accuracy")]
    assert [(row.split, row.train_cases, row.test_cases) for row in rows] == [(f"resample {i}", 12, 4) for i in range(4)]
    assert len(found.correct["e"]) == len(found.correct["raw_1nn"]) == 16
    assert np.mean([row.value for row in rows]) == found.correct["e"].mean()
    with pytest.raises(InputError, match="folds is 9, and the largest class of levels has 8 cases"):
        compare({"e": make_stub()}, task, folds=9)
    alone = replace(cases(0), labels=np.array(["up"] * 15 + ["down"]))
    with pytest.raises(InputError, match="class 'down' of levels has 1 case, and each of two classes needs 2 for folds"):
        compare({"e": make_stub()}, Task("levels", alone, None), folds=4)


def test_the_difference_of_two_methods_has_two_standard_errors():
    right = {"a": [[1, 1, 0, 0], [1, 1]], "b": [[1, 1, 1, 0], [1, 0]]}
    parts = [Comparison(str(i), [], {name: np.array(values[i], bool) for name, values in right.items()}) for i in range(2)]
    found = difference(parts, "b", "a")
    gaps = [np.array([0, 0, 1, 0]), np.array([0, -1])]
    assert found.mean == pytest.approx((0.25 - 0.5) / 2)
    assert found.over_cases == pytest.approx(np.sqrt(gaps[0].var(ddof=1) / 4 + gaps[1].var(ddof=1) / 2) / 2)
    assert found.over_datasets == pytest.approx(np.std([0.25, -0.5], ddof=1) / np.sqrt(2))
    text = "b - a: -12.5 percentage points (standard error 28.0 over 6 test cases, 37.5 over 2 datasets)"
    assert format_difference(found, "b", "a") == text
    assert "datasets" not in format_difference(difference(parts[:1], "b", "a"), "b", "a")


def test_raw_series_are_resized_channel_by_channel():
    one = cases(0)
    features = raw_features(one, length=50).features
    assert features.shape == (16, 100)
    np.testing.assert_allclose(features[3, 50:], reference.resize(one.series[3][1].astype(np.float64), 50), atol=1e-5)
    np.testing.assert_allclose(resize_series([c[0] for c in one.series], 50), features[:, :50], atol=1e-6)


@pytest.mark.parametrize(("channels", "shape"), [("mean", (16, 32)), ("concat", (16, 64)), ("none", (16, 2, 32))])
def test_channels_are_encoded_alone(channels, shape):
    encoder, series = smoke_encoder(), cases(0).series
    features = encoder.embed(series, channels=channels)
    assert features.shape == shape
    alone = np.stack([encoder.embed([case[i] for case in series]) for i in (0, 1)], axis=1)
    expected = {"mean": alone.mean(1), "concat": alone.reshape(16, -1), "none": alone}[channels]
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        ([], {}, "has no series"),
        ([np.ones(3)], {"channels": "max"}, "'max' is unknown"),
        ([np.ones(3)], {"pooling": "max"}, "'max' is unknown"),
        ([np.ones(3)], {"layer": 7}, "layer 7 does not exist"),
        ([np.ones((1, 3)), np.ones((2, 3))], {}, r"cases have \[1, 2\] channels"),
        ([np.ones(3), np.full(3, np.nan)], {}, "case 1 has no value"),
    ],
)
def test_what_cannot_be_embedded_is_rejected(series, options, message):
    with pytest.raises(InputError, match=message):
        smoke_encoder().embed(series, **options)


def test_features_of_each_channel_are_not_one_vector():
    with pytest.raises(InputError, match="choose mean or concat"):
        encode_cases(smoke_encoder(), cases(0), channels="none")


@pytest.mark.parametrize("magnitude", [1e-30, 1e-4, 1.0, 1e6, 1e30])
def test_features_of_any_magnitude_are_finite(magnitude):
    x = magnitude * np.random.default_rng(0).normal(size=(3, 2, 77))
    assert np.isfinite(smoke_encoder().embed(x)).all()


def test_long_series_are_embedded_in_pieces_as_corpora_cut_them():
    encoder = smoke_encoder("data.max_length=100")
    long, short = np.random.default_rng(0).normal(size=(2, 250))
    features = encoder.embed([long, short[:90]])
    pieces = encoder.embed(split_long_series(long.astype(np.float32), 100))
    assert len(pieces) == 3
    np.testing.assert_allclose(features[0], pieces.mean(0), atol=1e-6)
    np.testing.assert_allclose(features[1], encoder.embed([short[:90]])[0], atol=1e-6)


def test_a_small_signal_on_a_large_offset_is_seen():
    """Without its offset apart, float32 would leave steps of 0.008 Pa where the signal has 0.01."""
    encoder = smoke_encoder()
    signal = 0.01 * np.random.default_rng(0).normal(size=(2, 128))
    level = np.float64(101_325)
    features = encoder.embed(level + signal)
    exact = encoder.embed(np.float32(level) + np.round(signal / 2.0**-7) * 2.0**-7)  # what float32 makes of it
    assert np.abs(features - exact).max() > 10 * np.abs(features - encoder.embed(level + signal * (1 + 1e-6))).max()
    raw = raw_features(Cases([(level + signal)[:1]], None), length=128).features
    np.testing.assert_allclose(raw[0] - level, signal[0], atol=1e-8)
