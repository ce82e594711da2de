"""Fitting and prediction as a user meets them: two commands, files in between."""

import csv
import dataclasses

import numpy as np
import pandas as pd
import pytest

from nutime_jax.cli.main import main
from nutime_jax.config import to_dict
from nutime_jax.data.datasets import find_datasets
from nutime_jax.errors import InputError
from nutime_jax.estimators import NuTimeClassifier
from nutime_jax.finetuning.saved import load_classifier
from nutime_jax.training.checkpoints import CheckpointManager
from tests.encoders import smoke_encoder

# Of the sizes of tests/unit/test_finetune.py, whose programs then serve here too.
QUICK = ["--strategy=full", "--pooling=cls", "--epochs=2", "--learning_rates=1e-3,1e-2", "--batch_size=8", "--head_norm=none"]
QUICK += ["--min_validation_cases=1"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """What a run leaves, as far as fine-tuning reads it."""
    folder = tmp_path_factory.mktemp("pretrained")
    config, variables = smoke_encoder().config, smoke_encoder().variables
    state = {"params": {"encoder": variables["params"]}, "variables": {"constants": {"encoder": variables["constants"]}}}
    store = CheckpointManager(folder / "checkpoints")
    store.save(state, step=1, metadata={"config": to_dict(config)})
    store.close()  # it is written behind our back
    return folder


@pytest.fixture(scope="module")
def model(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "gunpoint"
    assert main(["fit", f"--encoder={workdir}", "--dataset=GunPoint", f"--out={folder}", *QUICK]) == 0
    return folder


def say(capfd, *arguments):
    status = main(list(map(str, arguments)))
    captured = capfd.readouterr()
    return status, captured.out, [line for line in captured.err.splitlines() if line.startswith("nutime: ")]


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_fine_tuning_tells_validation_and_test_apart(capfd, workdir, tmp_path):
    out = tmp_path / "deep" / "model"
    status, text, _ = say(capfd, "fit", f"--encoder={workdir}", "--dataset=GunPoint", f"--out={out}", *QUICK)
    assert status == 0
    assert "GunPoint: 40 cases trained in 2 epochs" in text
    assert "of 10 cases\ntest accuracy " in text
    assert "% of 150 cases, scored once" in text
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "weights.safetensors"]


def test_a_network_and_a_probe_are_averaged(capfd, workdir, tmp_path):
    given = [f"--encoder={workdir}", "--dataset=GunPoint", f"--out={tmp_path / 'model'}", *QUICK[:-1]]
    status, text, _ = say(capfd, "fit", *given, "--strategy=average", "--probe=ridge")
    assert status == 0
    assert "GunPoint: 50 cases trained in 2 epochs" in text
    assert "s, without validation: fewer than --min_validation_cases to hold out\nlearning rate 0.01 at epoch 2\n" in text
    assert "GunPoint: ridge probe on 16 features of 50 cases\ntest accuracy " in text
    assert say(capfd, "predict", f"--model={tmp_path / 'model'}", "--data=GunPoint", "--split=test", f"--out={tmp_path / 'l.csv'}")[0] == 0


@pytest.mark.slow
def test_the_published_protocol_is_called_what_it_is(capfd, workdir, tmp_path):
    arguments = ["fit", f"--encoder={workdir}", "--dataset=GunPoint", f"--out={tmp_path / 'model'}", *QUICK]
    status, text, _ = say(capfd, *arguments, "--selection=test")
    assert status == 0
    assert "GunPoint: 50 cases trained" in text
    assert "validation accuracy" not in text
    assert "which also chose epoch and rate: not an estimate" in text


def test_predict_labels_a_file(capfd, model, tmp_path):
    status, text, _ = say(capfd, "predict", f"--model={model}", "--data=GunPoint", "--split=test", f"--out={tmp_path / 'l.csv'}", "--proba")
    assert status == 0
    assert "% on the 150 labels of the file" in text
    rows = read_csv(tmp_path / "l.csv")
    assert list(rows[0]) == ["case", "label", "1", "2"]
    assert [int(row["case"]) for row in rows] == list(range(150))
    assert all(row["label"] == max("12", key=lambda one: float(row[one])) for row in rows)
    np.testing.assert_allclose([float(row["1"]) + float(row["2"]) for row in rows], 1, atol=1e-5)

    (tmp_path / "new.csv").write_text("1,2,3,4\n5,,7\n")
    status, text, _ = say(capfd, "predict", f"--model={model}", f"--data={tmp_path / 'new.csv'}", f"--out={tmp_path / 'l.csv'}")
    assert (status, text) == (0, f"written to {tmp_path / 'l.csv'}\n")
    assert [list(row) for row in read_csv(tmp_path / "l.csv")] == [["case", "label"]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=Gunpoint"], "'Gunpoint' is not a file, a folder or a bundled dataset"),
        (["--dataset=bundled"], "--dataset=bundled contains 8 datasets (ACSF1, ArrowHead, BasicMotions, …); choose one of them"),
        (["--dataset={tmp}/bare.csv"], "bare.csv (train) has no labels"),
        (["--dataset={tmp}/lone.tsv", "--selection=test"], "validates on the test split"),
        (["--strategy=half"], "strategy is 'half'; choose one of probe, head, full, average"),
        (["--strategy=probe"], "--head_norm is for --strategy=head, full or average, and the strategy is probe"),
        (["--probe=ridge"], "--probe is for --strategy=probe or average, and the strategy is full; remove it"),
        (["--epochs=0"], "epochs is 0; choose an integer of 1 or more"),
        (
            ["--learning_rates=1e-3,fast"],
            "learning_rates is '1e-3,fast'; choose one or more numbers above 0, separated by commas, each once",
        ),
        (["--learning_rates=0"], "learning_rates is (0.0,); choose one or more numbers above 0"),
        (["--out={tmp}"], "exists and is not a bundle of kind 'classifier'; choose another directory"),
        (["--encoder={tmp}/nowhere"], "nowhere' not found"),
    ],
)
def test_wrong_fine_tuning_is_one_sentence(capfd, workdir, tmp_path, arguments, message):
    (tmp_path / "bare.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "lone.tsv").write_text("1\t2\t3\n2\t5\t6\n")
    given = [f"--encoder={workdir}", "--dataset=GunPoint", f"--out={tmp_path / 'model'}", *QUICK]
    status, _, sentences = say(capfd, "fit", *given, *(one.format(tmp=tmp_path) for one in arguments))
    assert (status, len(sentences)) == (2, 1)
    assert message in sentences[0]


@pytest.mark.parametrize("probe", ["logistic", "kernel"])
def test_a_probe_is_fitted_saved_and_applied_to_a_file_with_ids(capfd, workdir, tmp_path, probe):
    (files,) = find_datasets("ArrowHead")
    train, test = files.read("train"), files.read("test")
    labels = np.char.add("@", train.labels.astype(str))
    ids = ["=1+1", "+x", "-x", "@x", "-2", *(f"pump {i}" for i in range(5, len(test.series)))]
    for split, cases in (("TRAIN", train), ("TEST", test)):
        frame = pd.DataFrame(np.concatenate(cases.series), index=pd.Index(ids[: len(cases.series)], name="id"))
        frame.assign(label=np.char.add("@", cases.labels.astype(str))).to_csv(tmp_path / f"mine_{split}.csv")
    given = [f"--encoder={workdir}", f"--dataset={tmp_path / 'mine_TRAIN.csv'}", f"--out={tmp_path / 'model'}"]
    status, text, _ = say(capfd, "fit", *given, f"--probe={probe}")
    assert status == 0
    assert f"mine: {probe} probe on 32 features of 36 cases" in text
    given = [f"--model={tmp_path / 'model'}", f"--data={tmp_path / 'mine_TRAIN.csv'}", "--split=test", f"--out={tmp_path / 'l.csv'}"]
    assert say(capfd, "predict", *given)[0] == 0
    rows = read_csv(tmp_path / "l.csv")
    saved = load_classifier(tmp_path / "model")
    dataclasses.replace(saved, mean=saved.mean[1:]).save(tmp_path / "short")
    with pytest.raises(InputError, match="does not describe a classifier"):
        load_classifier(tmp_path / "short")
    assert [row["id"] for row in rows] == ids
    expected = NuTimeClassifier(smoke_encoder(), probe=probe).fit(train.series, labels)
    assert [row["label"] for row in rows] == expected.predict(test.series).tolist()
    assert say(capfd, "predict", *given, "--proba", "--safe_csv")[0] == 0
    quoted = read_csv(tmp_path / "l.csv")
    assert [row["id"] for row in quoted] == ["'=1+1", "'+x", "'-x", "'@x", *ids[4:]]  # -2 is a number
    assert [row["label"] for row in quoted] == ["'" + row["label"] for row in rows]
    found = [[float(row["'" + name]) for name in expected.classes_] for row in quoted]
    np.testing.assert_allclose(found, expected.predict_proba(test.series), atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=GunPoint"], "Dataset GunPoint may have two splits; add --split=train or --split=test"),
        (["--data=BasicMotions", "--split=train"], "case 0 has 6 channels; the classifier was fitted on 1"),
        (["--model={tmp}"], "is not a bundle of kind 'classifier'"),
        (["--out={tmp}/no/labels.csv"], "choose another --out"),
    ],
)
def test_wrong_prediction_is_one_sentence(capfd, model, tmp_path, arguments, message):
    (tmp_path / "new.csv").write_text("1,2,3\n4,5,6\n")
    given = [f"--model={model}", f"--data={tmp_path / 'new.csv'}", f"--out={tmp_path / 'labels.csv'}"]
    status, _, sentences = say(capfd, "predict", *given, *(one.format(tmp=tmp_path) for one in arguments))
    assert (status, len(sentences)) == (2, 1)
    assert message in sentences[0]
