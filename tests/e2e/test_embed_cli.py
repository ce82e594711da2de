"""`nutime embed`, from files to files."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from nutime_jax.cli.main import main
from nutime_jax.data.datasets import find_datasets
from nutime_jax.loading import load_encoder
from tests.encoders import smoke_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return smoke_encoder().save(tmp_path_factory.mktemp("encoder") / "tiny")


def embed(encoder, data, out, *more):
    return main(["embed", f"--encoder={encoder}", f"--data={data}", f"--out={out}", *more])


def test_a_bundled_set(encoder, tmp_path, capfd):
    assert embed(encoder, "BasicMotions", tmp_path / "f.npz", "--split=test", "--channels=none", "--layer=1", "--pooling=mean") == 0
    assert "40 series embedded" in capfd.readouterr().out
    cases = find_datasets("BasicMotions")[0].read("test")
    with np.load(tmp_path / "f.npz") as file:
        expected = load_encoder(encoder).embed(cases.series, channels="none", layer=1, pooling="mean")
        np.testing.assert_allclose(file["features"], expected, rtol=0, atol=1e-5)
        assert file["labels"].tolist() == cases.labels.tolist()


def test_ids_and_labels_go_along_and_a_corpus_is_read(encoder, tmp_path):
    values = np.random.default_rng(0).normal(size=(2100, 20)).astype(np.float32)
    frame = pd.DataFrame(values).rename(columns=str).assign(series_id=[f"s{i}" for i in range(2100)], label="x")
    frame.to_parquet(tmp_path / "a.parquet")
    assert embed(encoder, tmp_path / "a.parquet", tmp_path / "f.parquet", "--batch_size=64") == 0
    written = pd.read_parquet(tmp_path / "f.parquet")
    assert written["id"].tolist() == frame["series_id"].tolist()
    assert set(written["label"]) == {"x"}
    features = written.filter(regex="^f[0-9]").to_numpy()
    np.testing.assert_allclose(features, load_encoder(encoder).embed(values), rtol=0, atol=1e-5)
    first = frame[:3].assign(series_id=["=1+1", "-2", "a"], label="@x")
    first.to_parquet(tmp_path / "b.parquet")
    assert embed(encoder, tmp_path / "b.parquet", tmp_path / "f.csv", "--safe_csv") == 0
    assert pd.read_csv(tmp_path / "f.csv", dtype=str)[["id", "label"]].values.tolist() == [["'=1+1", "'@x"], ["-2", "'@x"], ["a", "'@x"]]
    np.savez(tmp_path / "a.npz", X=values[:50])
    sources = f"--config.data.sources={tmp_path / 'a.npz'}"
    assert main(["data", "build", "--config=smoke", f"--data_dir={tmp_path / 'corpora'}", sources]) == 0
    assert embed(encoder, tmp_path / "corpora", tmp_path / "f.npy") == 0
    np.testing.assert_allclose(np.load(tmp_path / "f.npy"), features[:50], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "out", "more", "message"),
    [
        ("GunPoint", "f.npz", [], "Dataset GunPoint may have two splits; add --split=train or --split=test"),
        ("Gunpoint", "f.npz", [], "'Gunpoint' is not a file, a folder or a bundled dataset"),
        ("GunPoint", "f.txt", ["--split=test"], "has no suffix that says how to write features"),
        ("GunPoint", "no/f.npz", ["--split=test"], "does not exist"),
        ("GunPoint", "f.npz", ["--split=test", "--layer=9"], "layer 9 does not exist"),
        ("GunPoint", "f.npz", ["--split=test", "--pooling=max"], "pooling 'max' is unknown"),
        ("GunPoint", "f.npz", ["--split=test", "--batch_size=0"], "batch_size is 0"),
        ("BasicMotions", "f.csv", ["--split=test", "--channels=none"], "make no table"),
        ("missing.csv", "f.npz", [], "missing.csv, case 1 has no value that is not missing"),
        ("objects.npz", "f.npz", [], "without objects"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(encoder, tmp_path, capfd, monkeypatch, data, out, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "missing.csv").write_text("1,2\nnan,nan\n")
    np.savez(tmp_path / "objects.npz", X=np.array([None, {}], dtype=object))
    before = sorted(tmp_path.iterdir())
    assert embed(encoder, data, out, *more) == 2
    sentences = [line for line in capfd.readouterr().err.splitlines() if line.startswith("nutime: ")]
    assert len(sentences) == 1
    assert message in sentences[0]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_three_lines_load_little_and_say_nothing(tmp_path):
    code = """
import sys
from nutime_jax import load_encoder
features = load_encoder("nutime-small").embed([[1.0, 2.0, 3.0], [4.0, 5.0]])
assert features.shape == (2, 4224)
print(sorted({"orbax", "grain", "tensorflow_datasets", "optax", "pandas", "sklearn", "pyarrow", "scipy"} & set(sys.modules)))
"""
    environment = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip() == "[]"
