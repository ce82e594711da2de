import json
import os
import pickle
import struct
import sys
import warnings

import numpy as np
import pytest

from nutime_jax.convert.torch_files import read_state, write_state
from nutime_jax.errors import InputError

STATE = {
    "a.weight": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "a.bias": np.float64([1, 2]),
    "count": np.asarray(3, np.int64),
}


class Payload:
    """What a hostile pickle does as it is loaded: it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path):
    """A payload, which must not have run by the end of the test."""
    yield Payload(tmp_path / "ran")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch, which is optional, is not installed")


def equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(ours[name], array)


def test_safetensors_come_back(tmp_path):
    path = write_state(tmp_path / "deep" / "state.safetensors", STATE)
    equal(read_state(path).arrays, STATE)
    write_state(path, {"b": np.ones(2)})
    equal(read_state(path).arrays, {"b": np.ones(2)})
    assert os.listdir(path.parent) == ["state.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_settings_come_with_the_arrays(tmp_path, suffix, request):
    if suffix == ".pth":
        request.getfixturevalue("torch")
    config = {"transformer_heads": 8, "pe_mode": "learnable", "wne_use_in": False}
    assert read_state(write_state(tmp_path / f"state{suffix}", STATE, config)).config == config


def test_npz_is_read_and_the_prefix_of_data_parallel_dropped(tmp_path):
    np.savez(tmp_path / "state.npz", **{f"module.{name}": array for name, array in STATE.items()})
    equal(read_state(tmp_path / "state.npz").arrays, STATE)


def test_torch_files_come_back(torch, tmp_path):
    path = write_state(tmp_path / "state.pth", STATE)
    equal(read_state(path).arrays, STATE)
    arrays = {f"module.{name}": torch.from_numpy(array.copy()) for name, array in STATE.items()}
    for wrapped in (arrays, {"model": arrays, "epoch": 3}, {"state_dict": arrays, "optimizer": {"state": {0: arrays}}}):
        torch.save(wrapped, path)
        equal(read_state(path).arrays, STATE)
    torch.save({"half": torch.ones(2, dtype=torch.bfloat16)}, path)
    equal(read_state(path).arrays, {"half": np.ones(2, np.float32)})


@pytest.mark.parametrize("kind", ["meta", "sparse", "quantised", "expanded"])
def test_other_kinds_of_tensors_are_rejected(torch, tmp_path, kind):
    tensors = {
        "meta": lambda: torch.ones(3, device="meta"),
        "sparse": lambda: torch.eye(3).to_sparse(),
        "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "expanded": lambda: torch.ones(1).expand(1 << 40),
    }
    with warnings.catch_warnings(action="ignore"):  # PyTorch is about to drop quantised tensors
        torch.save({"a": tensors[kind]()}, tmp_path / "state.pth")
    with pytest.raises(
        InputError, match=r"'a' in .* tensor\. Save it as an ordinary, dense tensor of the CPU|is corrupt or not a checkpoint"
    ):
        read_state(tmp_path / "state.pth")


def test_eight_bits_are_read_exactly(torch, tmp_path):
    torch.save({"a": torch.tensor([0.5, -2]).to(torch.float8_e4m3fn)}, tmp_path / "state.pth")
    equal(read_state(tmp_path / "state.pth").arrays, {"a": np.array([0.5, -2], np.float32)})


def test_a_damaged_compressed_stream_is_rejected(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", a=np.random.default_rng(0).normal(size=1000))
    content = (tmp_path / "w.npz").read_bytes()
    for place in range(40, len(content), 400):
        (tmp_path / "w.npz").write_bytes(content[:place] + bytes(20) + content[place + 20 :])
        with pytest.raises(InputError, match=r"is corrupt, or contains|is not an \.npz"):
            read_state(tmp_path / "w.npz")


@pytest.mark.parametrize("form", ["pickle", "checkpoint", "array"])
def test_a_pickle_with_code_is_rejected_and_not_executed(torch, trap, tmp_path, form):
    path = tmp_path / "hostile.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": trap}))
    else:
        torch.save({"state_dict": {"a": trap if form == "array" else torch.ones(2)}, "args": trap}, path)
    with pytest.raises(InputError, match="No code in it was executed"):
        read_state(path)


def test_without_pytorch_a_pickle_is_not_opened(monkeypatch, trap, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps({"state_dict": trap}))
    with pytest.raises(InputError, match=r"Install PyTorch \(pip install 'nutime_jax\[torch\]'\)"):
        read_state(tmp_path / "hostile.pth")
    with pytest.raises(InputError, match="Install PyTorch"):
        write_state(tmp_path / "state.pth", STATE)
    assert os.listdir(tmp_path) == ["hostile.pth"]


def test_objects_in_an_npz_are_rejected_and_not_opened(trap, tmp_path):
    np.savez(tmp_path / "hostile.npz", a=np.array([trap], object))
    with pytest.raises(InputError, match="contains objects, which are never opened"):
        read_state(tmp_path / "hostile.npz")


def header(shape, end, *, length=None, dtype="F32"):
    text = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        header([2**20, 2**20], 2**42),
        header([100], 16),
        header([4], 16, length=2**60),
        header([4], 16, length=2**20),
        header([-4], 16),
        header([16], 16, dtype="F8_E4M3"),
        b"",
        b"\x80\x04.",
    ],
    ids=["terabytes", "too few bytes", "endless header", "cut header", "negative shape", "unknown numbers", "empty", "pickle"],
)
def test_malformed_safetensors_are_rejected(tmp_path, content):
    (tmp_path / "hostile.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        read_state(tmp_path / "hostile.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.h5", b"", "has an unknown suffix. Pass a file of weights: .safetensors, .npz, .pth"),
        ("state.npz", b"PK\x03\x04 no more", "is not an .npz file"),
        ("missing.npz", None, r"Cannot read .* \(No such file or directory\)"),
    ],
)
def test_other_files_are_rejected(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_state(tmp_path / name)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "contains no arrays"),
        ({"a": np.array(["text"])}, "a in .* has dtype <U4"),
        ({"a": np.float32([1, np.nan])}, "a in .* contains values that are not finite"),
    ],
)
def test_arrays_that_are_not_weights_are_rejected(tmp_path, state, message):
    np.savez(tmp_path / "state.npz", **state)
    with pytest.raises(InputError, match=message):
        read_state(tmp_path / "state.npz")


def test_unwritable_paths_are_rejected(tmp_path):
    with pytest.raises(InputError, match=r"Choose one of \.safetensors, \.pth"):
        write_state(tmp_path / "state.bin", STATE)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        write_state(tmp_path / "file" / "state.safetensors", STATE)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(InputError, match="Cannot write"):
        write_state(tmp_path / "folder.safetensors", STATE)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.safetensors"]
