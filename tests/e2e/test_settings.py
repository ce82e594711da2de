"""Every command and class reads the settings of the encoder, and all give the same answer."""

import csv
import dataclasses

import numpy as np
import pytest

from nutime_jax.cli.main import main
from nutime_jax.config import override
from nutime_jax.data.datasets import find_datasets
from nutime_jax.estimators import NuTimeAnomalyDetector, NuTimeClassifier, NuTimeClusterer, NuTimeTransformer
from nutime_jax.evaluation.results import read_rows
from nutime_jax.finetuning import loop
from nutime_jax.finetuning.saved import load_classifier
from nutime_jax.loading import load_encoder
from tests.encoders import smoke_encoder

OWN = ("evaluation.pooling=mean", "evaluation.num_window_offsets=2", "evaluation.diff_orders=0,1")
"""Settings that no command has as a default of its own."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with an encoder and a dataset of two channels."""
    folder = tmp_path_factory.mktemp("world")
    smoke_encoder(*OWN).save(folder / "encoder")
    rng, arrays = np.random.default_rng(0), {}
    for split, cases in (("train", 24), ("test", 40)):
        labels = np.arange(cases) % 3
        arrays |= {f"X_{split}": rng.normal(size=(cases, 2, 40)) + 0.4 * labels[:, None, None], f"y_{split}": labels}
    np.savez(folder / "mine.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def cases(world):
    (files,) = find_datasets(str(world / "mine.npz"))
    return files.read("train"), files.read("test")


@pytest.fixture(scope="module")
def features(cases):
    """Features of the test cases: mean tokens of the last layer, at two offsets, of the series and its differences."""
    return smoke_encoder(*OWN).embed(cases[1].series, pooling="mean")


def run(world, command, *arguments):
    encoder = world / "encoder"
    flag = f"--config.encoders=own={encoder}" if command[0] == "sweep" else f"--encoder=own={encoder}"
    flag = flag if command[0] in ("sweep", "evaluate") else f"--encoder={encoder}"
    assert main([*command, flag, *arguments]) == 0


def embedded(world, monkeypatch, tmp_path):
    run(world, ["embed"], f"--data={world / 'mine.npz'}", "--split=test", f"--out={tmp_path / 'f.npz'}")
    return np.load(tmp_path / "f.npz")["features"]


def plotted(world, monkeypatch, tmp_path):
    from nutime_jax.report import plots, style

    found = []
    monkeypatch.setattr(plots, "plot_embedding", lambda features, *args, **options: found.append(features))
    monkeypatch.setattr(style, "save_figure", lambda *args: None)
    run(world, ["plot", "embedding"], f"--dataset={world / 'mine.npz'}", f"--out={tmp_path / 'f.svg'}")
    return found[0][24:]


def exported(world, monkeypatch, tmp_path):
    from nutime_jax import export

    found = []

    def export_encoder(encoder, folder, *, layer, pooling, card):
        (tmp_path / export.PROGRAM).write_bytes(b"")
        found.append(encoder.embed(find_datasets(str(world / "mine.npz"))[0].read("test").series, layer=layer, pooling=pooling))
        return tmp_path

    monkeypatch.setattr(export, "export_encoder", export_encoder)
    run(world, ["export"], f"--out={tmp_path / 'exported'}")
    return found[0]


def transformed(world, monkeypatch, tmp_path):
    (files,) = find_datasets(str(world / "mine.npz"))
    return NuTimeTransformer(world / "encoder").fit(files.read("train").series).transform(files.read("test").series)


@pytest.mark.parametrize("read", [embedded, plotted, exported, transformed])
def test_features_are_those_of_the_encoder(world, features, monkeypatch, tmp_path, read):
    np.testing.assert_allclose(read(world, monkeypatch, tmp_path), features, atol=2e-5)


@pytest.mark.parametrize("estimator", [NuTimeClassifier, NuTimeClusterer, NuTimeAnomalyDetector])
def test_estimators_have_no_settings_of_their_own(estimator):
    parameters = estimator().get_params()
    assert (parameters["layer"], parameters["pooling"], parameters["channels"]) == (None, None, "concat")


@pytest.mark.parametrize("normalise", ["none", pytest.param("dataset", marks=pytest.mark.slow)])
def test_evaluate_sweep_and_the_classifier_label_every_case_equally(world, cases, tmp_path, capsys, normalise):
    train, test = cases
    run(world, ["evaluate"], f"--dataset={world / 'mine.npz'}", f"--out={tmp_path / 'r.csv'}", f"--normalise={normalise}")
    assert "own - untrained: " in capsys.readouterr().out
    grid = [f"sources={world / 'mine.npz'}", "baselines=", "protocols=kernel", f"normalise={normalise}"]
    run(world, ["sweep", "--config=sweep"], f"--out={tmp_path / 'sweep'}", *(f"--config.{field}" for field in grid))
    evaluated, swept = (
        next(row for row in read_rows(path) if (row.method, row.protocol, row.metric) == ("own", "kernel", "accuracy"))
        for path in (tmp_path / "r.csv", tmp_path / "sweep" / "results.csv")
    )
    assert (evaluated.setting, evaluated.value, evaluated.encoder) == (swept.setting, swept.value, swept.encoder)
    assert ("normalise=dataset" in evaluated.encoder) == (normalise == "dataset")
    encoder = load_encoder(world / "encoder").with_options(normalise=normalise)
    classifier = NuTimeClassifier(encoder, probe="kernel").fit(train.series, train.labels)
    assert evaluated.value == classifier.score(test.series, test.labels)
    run(world, ["fit"], f"--dataset={world / 'mine.npz'}", "--probe=kernel", f"--out={tmp_path / 'model'}", f"--normalise={normalise}")
    fitted = load_classifier(tmp_path / "model")
    assert bool(fitted.encoder.config.evaluation.channel_means) == (normalise == "dataset")
    np.testing.assert_array_equal(fitted.predict(test.series), classifier.predict(test.series))
    given = [f"--model={tmp_path / 'model'}", f"--data={world / 'mine.npz'}", "--split=test", f"--out={tmp_path / 'l.csv'}"]
    assert main(["predict", *given]) == 0
    with open(tmp_path / "l.csv") as file:
        assert [line["label"] for line in csv.DictReader(file)] == classifier.predict(test.series).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "pooling", "offsets"), [([], "mean", 2), (["--pooling=cls", "--window_offsets=1"], "cls", 1)])
def test_fine_tuning_pools_as_the_encoder_does(world, tmp_path, flags, pooling, offsets):
    quick = ["--strategy=head", "--epochs=1", "--learning_rates=1e-3", *flags]
    run(world, ["fit"], f"--dataset={world / 'mine.npz'}", f"--out={tmp_path / 'model'}", *quick)
    settings = load_classifier(tmp_path / "model").settings
    assert (settings.pooling, settings.num_window_offsets) == (pooling, offsets)


@pytest.mark.slow
def test_fine_tuning_normalises_training_cases_and_those_to_predict(world, cases, tmp_path, monkeypatch):
    train, test = cases
    packed, pack = [], loop.pack_cases
    monkeypatch.setattr(loop, "pack_cases", lambda series, labels: packed.extend(series) or pack(series, labels))
    quick = ["--strategy=head", "--epochs=1", "--learning_rates=1e-3", "--normalise=dataset"]
    run(world, ["fit"], f"--dataset={world / 'mine.npz'}", f"--out={tmp_path / 'model'}", *quick)
    joined = np.concatenate(train.series, axis=1).astype(np.float64)
    mean, std = joined.mean(1)[:, None], joined.std(1)[:, None]
    np.testing.assert_allclose(packed, [(case - mean) / std for case in train.series], rtol=1e-5, atol=1e-6)
    classifier = load_classifier(tmp_path / "model")
    plain = dataclasses.replace(classifier, config=override(classifier.config, "evaluation.normalise=none"))
    by_hand = [(case - mean) / std for case in test.series]
    np.testing.assert_allclose(classifier.predict_proba(test.series), plain.predict_proba(by_hand), atol=1e-5)
