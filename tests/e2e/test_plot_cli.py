"""Figures as a user asks for them."""

import pytest

from nutime_jax.cli.main import main
from tests.encoders import smoke_encoder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return smoke_encoder().save(tmp_path_factory.mktemp("encoder") / "tiny")


def say(capfd, *arguments):
    status = main(["plot", *map(str, arguments)])
    captured = capfd.readouterr()
    return status, captured.out, [line for line in captured.err.splitlines() if line.startswith("nutime: ")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (["embedding", "--dataset=BasicMotions"], ["BasicMotions, features of", "running", "component 2"]),
        (["nme"], ["weight of each scale", "scalar"]),
        (
            ["views", "--config=smoke", "--dataset=PickupGestureWiimoteZ", "--config.augment.crop_ratio=0.5,0.6"],
            ["crops of 50% to 60%", "64 points"],
        ),
    ],
)
def test_a_figure_is_written(capfd, saved, tmp_path, figure, words):
    out = tmp_path / "figure.svg"
    encoder = [] if figure[0] == "views" else [f"--encoder={saved}"]
    assert say(capfd, *figure, *encoder, f"--out={out}") == (0, f"written to {out}\n", [])
    text = out.read_text()
    assert all(word in text for word in words)
    assert out.stat().st_size < 150_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nme", "--encoder=nutime-small", "--out=x.pdf"], "x.pdf is not the name of a figure: end it in .png or .svg"),
        (["nme", "--encoder=nutime-smal", "--out=x.svg"], "encoder 'nutime-smal' not found (did you mean 'nutime-small'?)"),
        (["embedding", "--encoder=nutime-small", "--dataset=bundled", "--out=x.svg"], "--dataset=bundled contains 8 datasets"),
        (["embedding", "--encoder=nutime-small", "--dataset=GunPoint", "--method=umap", "--out=x.svg"], "method 'umap' is unknown"),
        (["views", "--config=smoke", "--dataset=GunPoint", "--cases=0", "--out=x.svg"], "--cases is 0; choose 1 to 12"),
        (["views", "--config=smoke", "--dataset=GunPoint", "--config.crop_ratio=1", "--out=x.svg"], "did you mean 'augment.crop_ratio'?"),
        (
            ["views", "--config=smoke", "--dataset=GunPoint", "--config.augment.crop_ratio=2,1", "--out=x.svg"],
            "augment.crop_ratio is (2.0, 1.0)",
        ),
        (["training", "nowhere", "--out=x.svg"], "nowhere has no metrics.jsonl"),
    ],
)
def test_refusals(capfd, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, (sentence,) = say(capfd, *arguments)
    assert status == 2
    assert message in sentence
    assert list(tmp_path.iterdir()) == []
