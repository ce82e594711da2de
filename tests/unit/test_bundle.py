import hashlib
import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from nutime_jax import bundle
from nutime_jax.bundle import check_output_dir, is_bundle, load_bundle, save_bundle
from nutime_jax.errors import InputError

ARRAYS = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.asfortranarray(np.ones((3, 2))), "none": np.zeros((0, 4))}
ABOUT = {"name": "one", "sizes": [1, 2]}
KIND = {"kind": "encoder", "schema": 3}


def read(folder):
    return load_bundle(folder, **KIND, writer="the test")


@pytest.fixture
def folder(tmp_path):
    return save_bundle(tmp_path / "deep" / "one", ABOUT, ARRAYS, **KIND, card="# One\n")


def reseal(folder, *, weights=None, **changes):
    """Somebody who wishes harm can seal as well."""
    about = json.loads((folder / "config.json").read_text()) | changes
    if weights is not None:
        (folder / "weights.safetensors").write_bytes(weights)
        about["weights"] = hashlib.sha256(weights).hexdigest()
    (folder / "config.json").write_text(json.dumps(bundle._with_digest(about)))


def test_what_is_written_is_read(folder, tmp_path):
    contents = read(folder)
    assert {name: contents.about[name] for name in ABOUT} == ABOUT
    assert contents.card == "# One\n"
    assert contents.arrays.keys() == ARRAYS.keys()
    for name, leaf in ARRAYS.items():
        np.testing.assert_array_equal(contents.arrays[name], leaf)
        assert contents.arrays[name].dtype == leaf.dtype
    save_bundle(folder, {"name": "two"}, {"x": np.ones(2)}, **KIND)
    assert [path.name for path in sorted(folder.iterdir())] == ["config.json", "weights.safetensors"]
    assert read(folder).about["name"] == "two"
    assert os.listdir(folder.parent) == ["one"]
    assert is_bundle(folder)
    assert not is_bundle(folder.parent)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "card.md"])
@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_every_damage_is_found(folder, name, how):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(content if how == "flip" else content[:-1])
    with pytest.raises(InputError, match="is not a bundle of kind 'encoder'" if (name, how) == ("config.json", "remove") else "is corrupt"):
        read(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_rejected(folder, tmp_path, value):
    arrays = {"w": np.array([1, value], np.float32)}
    with pytest.raises(InputError, match=r"array 'w' has values that are not finite; use weights"):
        save_bundle(tmp_path / "two", ABOUT, arrays, **KIND)
    assert not (tmp_path / "two").exists()
    reseal(folder, weights=save(arrays))
    with pytest.raises(InputError, match=r"array 'w' has values that are not finite; use weights"):
        read(folder)


def header(entries, *, size=None):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x80\x04\x95",
        header({}, size=2**62),
        header({}, size=10**8 - 8),
        header({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}) + bytes(16),
        header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + bytes(4),
        header({"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}}),
        header({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + bytes(4),
        header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + bytes(4),
        header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "xy"}) + bytes(4),
        header({"x": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 8]}}) + bytes(8),
        header({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}) + bytes(2),
        header({"x": 1}) + bytes(8),
        struct.pack("<Q", 4) + b"[1,2",
    ],
)
def test_a_header_that_lies_is_rejected(folder, weights):
    reseal(folder, weights=weights)
    with pytest.raises(InputError, match=r"is corrupt: weights\.safetensors cannot be read"):
        read(folder)


@pytest.mark.parametrize("text", [b"", b"nothing", b"\xff\xfe", b"{" * 10, b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_is_rejected(folder, text):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(InputError, match=r"is corrupt: .*config\.json"):
        read(folder)


@pytest.mark.parametrize("about", [1, [], {}, {"digest": 1}, {"model_type": "bert"}])
def test_what_is_of_something_else_is_rejected(folder, about):
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(
        InputError, match=r"is not a bundle of kind 'encoder' \(its config.json has another format\); pass a directory that the test wrote"
    ):
        read(folder)
    with pytest.raises(InputError, match="exists and is not a bundle of kind 'encoder'"):
        check_output_dir(folder, kind="encoder")


def test_another_kind_or_schema_is_rejected(folder):
    with pytest.raises(InputError, match=r"is not a bundle of kind 'classifier' \(its kind is 'encoder'\)"):
        load_bundle(folder, kind="classifier", schema=3, writer="the test")
    with pytest.raises(InputError, match="has schema 3, this version reads 4"):
        load_bundle(folder, kind="encoder", schema=4, writer="the test")
    reseal(folder, schema={"a": []})
    with pytest.raises(InputError, match="has schema"):
        read(folder)


def test_absurd_sizes_and_pipes_are_not_read(folder):
    for name in ("config.json", "weights.safetensors"):
        path = folder / name
        before = path.read_bytes()
        os.truncate(path, bundle.MAX_FILE_BYTES[name] + 1)  # sparse: it takes no room
        with pytest.raises(InputError, match=r"has \d+ bytes, more than"):
            read(folder)
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(InputError, match="is not a regular file"):
            read(folder)
        path.unlink()
        path.write_bytes(before)
    assert read(folder).about["name"] == "one"


def test_what_must_not_be_lost_is_not_replaced(folder, tmp_path):
    with pytest.raises(InputError, match="exists and is not a bundle of kind 'classifier'; choose another directory"):
        save_bundle(folder, {}, {}, kind="classifier", schema=1)
    (folder / "notes.txt").write_text("mine")
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to(tmp_path / "nowhere")
    for target in (folder, file, link):
        with pytest.raises(InputError, match="exists and is not a bundle of kind 'encoder'"):
            save_bundle(target, {}, {}, **KIND)
    with pytest.raises(InputError, match="Cannot write"):
        save_bundle(file / "below", {}, {}, **KIND)
    assert check_output_dir(tmp_path / "new" / "one", kind="encoder").parent.is_dir()


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_a_kill_while_writing_leaves_the_old_one(folder, monkeypatch):
    def die(*_):
        raise Killed

    monkeypatch.setattr(bundle.os, "fsync", die)
    with pytest.raises(Killed):
        save_bundle(folder, {"name": "two"}, {"x": np.ones(2)}, **KIND)
    assert read(folder).about["name"] == "one"
