"""Export as a user meets it: one command, and a folder that says how to use it."""

import numpy as np
import pytest

from nutime_jax.bundle import save_bundle
from nutime_jax.cli.main import main
from nutime_jax.export import load_exported
from tests.encoders import smoke_encoder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    encoder = smoke_encoder()
    return encoder.save(tmp_path_factory.mktemp("encoders") / "source", card="# Source\n\nOf a test.\n")


def say(capfd, *arguments):
    status = main(["export", *map(str, arguments)])
    captured = capfd.readouterr()
    return status, captured.out, [line for line in captured.err.splitlines() if line.startswith("nutime: ")]


@pytest.mark.slow
def test_an_encoder_becomes_a_program_and_the_program_another(capfd, source, tmp_path):
    status, text, _ = say(capfd, f"--encoder={source}", f"--out={tmp_path / 'one'}", "--layer=0", "--pooling=mean")
    assert status == 0
    assert text.startswith(f"{tmp_path / 'one' / 'program.jax'}: 0.2 MB")
    exported = load_exported(tmp_path / "one")
    assert (exported.about["layer"], exported.about["readout"]) == (0, "mean")
    assert exported.embed([np.arange(50.0), np.ones(64)]).shape == (2, 16)

    assert say(capfd, f"--encoder={tmp_path / 'one'}", f"--out={tmp_path / 'two'}")[0] == 0
    card = (tmp_path / "two" / "card.md").read_text()
    assert "the last layer, normalised, pooling cls+mean" in card
    assert card.endswith("# Source\n\nOf a test.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder={source}", "--layer=2"], "layer 2 does not exist; choose 0 to 1"),
        (["--encoder={source}", "--pooling=max"], "pooling 'max' is unknown; choose one of cls, mean, cls+mean, all_layers"),
        (["--encoder={source}", "--out={tmp}"], "exists and is not a bundle of kind 'encoder'; choose another directory"),
        (["--encoder={tmp}/nowhere"], "nowhere' not found"),
        (["--encoder={tmp}/classifier"], "is not a bundle of kind 'encoder' (its kind is 'classifier')"),
    ],
)
def test_impossible_exports_are_rejected(capfd, source, tmp_path, arguments, message):
    save_bundle(tmp_path / "classifier", {}, {"head": np.ones(2)}, kind="classifier", schema=1)
    given = [f"--out={tmp_path / 'out'}", *(argument.format(source=source, tmp=tmp_path) for argument in arguments)]
    status, _, sentences = say(capfd, *given)
    assert (status, len(sentences)) == (2, 1)
    assert message in sentences[0]
    assert [path.name for path in tmp_path.iterdir()] == ["classifier"]
