"""Conversion as a user meets it: a file or a folder goes in, a folder or a file comes out, with what was found."""

import json
import pickle
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nutime_jax.cli.main import main
from nutime_jax.config import load_config, to_dict
from nutime_jax.convert.arrays import from_torch_state, to_torch_state
from nutime_jax.loading import list_pretrained, load_encoder, untrained_encoder
from nutime_jax.models.network import build_encoder
from nutime_jax.objectives import build_network
from nutime_jax.training.checkpoints import CheckpointManager

CONFIG = load_config("smoke", ["model.depth=1"])


@pytest.fixture(scope="module")
def variables():
    """Of both networks of BYOL, drawn without compiling anything."""
    shapes = jax.eval_shape(
        partial(build_network(build_encoder(CONFIG.model), CONFIG.objective).init, train=False),
        jax.random.key(0),
        jnp.zeros((2, 2, 1, CONFIG.length)),
    )
    rng = np.random.default_rng(0)
    online, target = (jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes) for _ in range(2))
    target = {kind: {name: tree for name, tree in part.items() if name != "predictor"} for kind, part in target.items()}
    return {"online": online, "target": target}


@pytest.fixture(scope="module")
def workdir(variables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    state = {}
    for role, prefix in (("online", ""), ("target", "target_")):
        state[f"{prefix}params"] = variables[role]["params"]
        state[f"{prefix}variables"] = {kind: variables[role][kind] for kind in ("batch_stats", "constants")}
    store = CheckpointManager(folder / "checkpoints")
    store.save(state, step=3, metadata={"config": to_dict(CONFIG)})
    store.close()  # it is written behind our back
    return folder


@pytest.fixture(scope="module")
def checkpoint(variables, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "byol.safetensors"
    state = to_torch_state(build_network(build_encoder(CONFIG.model), CONFIG.objective), variables, batches=6)
    save_file({name: np.asarray(array, order="C") for name, array in state.items()}, path)
    return path


def say(capfd, *arguments):
    status = main(["convert", *map(str, arguments)])
    captured = capfd.readouterr()
    return status, captured.out, [line for line in captured.err.splitlines() if line.startswith("nutime: ")]


def test_a_checkpoint_becomes_an_encoder_and_a_file_again(capfd, checkpoint, variables, tmp_path):
    (tmp_path / "release.json").write_text(json.dumps({"transformer_heads": 9, "transformer_head_dim": 9, "dropout": 0.2, "lr": 1}))
    arguments = [checkpoint, tmp_path / "encoder", "--heads=2", f"--config={tmp_path / 'release.json'}", "--network=target", "--length=64"]
    status, text, _ = say(capfd, *arguments)
    assert status == 0
    assert "BYOL; the encoder has" in text
    assert "depth 1, width 16, heads 2 x 8, MLP 32, window 16, 9 scales from 0.0001 to 10000" in text
    assert "the target network moved: 10 of its 10 LayerNorm arrays left 1 and 0; 0 of 29 arrays equal those of the online network" in text
    assert text.endswith(f"omitted: projector, the online network\nwritten to {tmp_path / 'encoder'}\n")
    encoder = load_encoder(tmp_path / "encoder")
    assert (encoder.config.length, encoder.config.model.dropout) == (64, 0.2)
    jax.tree.map(np.testing.assert_array_equal, encoder.variables["params"], variables["target"]["params"]["encoder"])
    card = (tmp_path / "encoder" / "card.md").read_text()
    assert "the target network moved" in card
    assert "`byol.safetensors` (SHA-256 " in card

    status, text, _ = say(capfd, tmp_path / "encoder", tmp_path / "back.safetensors")
    assert status == 0
    assert text.startswith(
        f"27 arrays of an encoder written to {tmp_path / 'back.safetensors'}\nThe official implementation loads only .pth"
    )
    assert say(capfd, tmp_path / "back.safetensors", tmp_path / "again")[0] == 0  # without --heads and --config
    assert load_encoder(tmp_path / "again").config.model == encoder.config.model
    official, back = load_file(checkpoint), load_file(tmp_path / "back.safetensors")
    for name, array in back.items():
        np.testing.assert_array_equal(array, official[f"momentum_backbone.{name}"])


def test_a_workdir_becomes_a_checkpoint_of_byol(capfd, workdir, checkpoint, variables, tmp_path):
    status, text, _ = say(capfd, workdir, tmp_path / "byol.safetensors")
    assert status == 0
    assert text.startswith(f"78 arrays of BYOL written to {tmp_path / 'byol.safetensors'}\n")
    assert re.search(r"cannot load the heads: their hidden width is \d+, not \d+ \(16 times the output width\)", text)
    official, written = load_file(checkpoint), load_file(tmp_path / "byol.safetensors")
    assert official.keys() == written.keys()
    assert all(np.array_equal(official[name], array) for name, array in written.items())
    _, back = from_torch_state(load_file(tmp_path / "byol.safetensors"), {"transformer_heads": 2})
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_a_saved_encoder_becomes_a_file(capfd, tmp_path):
    encoder = untrained_encoder(CONFIG)
    assert say(capfd, encoder.save(tmp_path / "saved"), tmp_path / "saved.safetensors")[0] == 0
    kernel = encoder.variables["params"]["embedding"]["shape"]["kernel"]
    np.testing.assert_array_equal(load_file(tmp_path / "saved.safetensors")["0.window_embedding.weight"], kernel.T[:, None])


@pytest.mark.parametrize("name", list_pretrained())
def test_shipped_encoders_have_no_official_form(capfd, tmp_path, name):
    status, _, sentences = say(capfd, name, tmp_path / "shipped.safetensors")
    assert status == 2
    assert len(sentences) == 1
    assert "dense" in sentences[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{checkpoint}", "{tmp}/encoder"], "is not divisible by the official head width 64. Pass the number of heads"),
        (["{checkpoint}", "{tmp}/encoder", "--heads=3"], "The attention is 16 wide and 3 heads of 5 are given"),
        (["{checkpoint}", "{tmp}/encoder", "--heads=0"], "It must be a whole number above 0"),
        (["{checkpoint}", "{tmp}/encoder", "--heads=2", "--network=both"], "network 'both' is unknown"),
        (["{checkpoint}", "{tmp}/encoder", "--config={tmp}/hostile.pth"], "is not a JSON file"),
        (["{checkpoint}", "{tmp}"], "exists and is not a bundle of kind 'encoder'; choose another directory"),
        (["{tmp}/hostile.pth", "{tmp}/encoder"], "hostile.pth"),
        (["{tmp}/nowhere", "{tmp}/encoder"], "has an unknown suffix. Pass a file of weights"),
        (["{workdir}", "{tmp}/byol.bin"], "Choose one of .safetensors, .pth"),
        (["{workdir}", "{tmp}/byol.safetensors", "--heads=2"], "--heads is for files of PyTorch weights"),
        (["{tmp}", "{tmp}/byol.safetensors"], "holds no checkpoint"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(capfd, workdir, checkpoint, tmp_path, arguments, message):
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps(print))
    places = {"checkpoint": checkpoint, "workdir": workdir, "tmp": tmp_path}
    status, _, sentences = say(capfd, *(one.format(**places) for one in arguments))
    assert (status, len(sentences)) == (2, 1)
    assert message in sentences[0]
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.pth"]
