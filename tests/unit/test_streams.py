"""Sources that are read in blocks hold what they hold when they are read whole."""

import io
import os
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest

from nutime_jax.data import formats, streams
from nutime_jax.data.corpus import open_corpus
from nutime_jax.data.datasets import find_datasets
from nutime_jax.data.streams import is_corpus, open_corpus_stream, open_stream
from nutime_jax.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(25, 2, 9)).astype(np.float32)
LABELS = np.array([1.0, 2.0, 3.0, 4.0, 5.0] * 5)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 300)
    monkeypatch.setattr(streams, "WHOLE_BYTES", 300)


def stream(path, split="train"):
    return open_stream(find_datasets(str(path))[0], split)


def read(path, split="train"):
    opened = stream(path, split)
    blocks = list(opened.blocks)
    assert len(blocks) > 2
    if opened.count is not None:
        assert opened.count == sum(len(block.series) for block in blocks)
    columns = ([getattr(block, name) for block in blocks] for name in ("labels", "ids"))
    return [one for block in blocks for one in block.series], *(None if parts[0] is None else np.concatenate(parts) for parts in columns)


def write_wide(path, values, **columns):
    pd.DataFrame(values).rename(columns=str).assign(**columns).to_parquet(path, row_group_size=7)


@pytest.mark.parametrize("form", ["npz", "deflated", "split", "npy", "float64", "columns", "big"])
def test_arrays_in_blocks(tmp_path, form, monkeypatch):
    path, arrays, split = tmp_path / "a.npz", {"X": X, "y": LABELS}, "train"
    if form == "split":
        arrays, split = {"X_train": X[:3], "X_test": X, "y_test": LABELS}, "test"
    elif form == "float64":
        arrays["X"] = X.astype(np.float64)
    elif form == "big":
        arrays["X"] = X.astype(">f4")
    if form == "npy":
        path = tmp_path / "X_train.npy"
        np.save(path, X)
        np.save(tmp_path / "y_train.npy", LABELS)
    elif form == "columns":  # rows do not follow one another
        np.savez(path, X=np.asfortranarray(X), y=LABELS)
        blocks = list(stream(path).blocks)
        np.testing.assert_array_equal(np.stack(blocks[0].series), X)
        return
    else:
        (np.savez_compressed if form == "deflated" else np.savez)(path, **arrays)
    series, labels, ids = read(path, split)
    np.testing.assert_array_equal(np.stack(series), X)
    assert labels.tolist() == LABELS.astype(int).astype(str).tolist()
    assert ids is None


def test_a_wide_table_in_blocks(tmp_path):
    path = tmp_path / "a.parquet"
    values = X[:, 0].copy()
    values[3, 4] = np.nan
    write_wide(path, values, label=[0.5, *LABELS[1:]], id=[f"s{i}" for i in range(25)])
    series, labels, ids = read(path)
    np.testing.assert_array_equal(np.stack(series), values)
    assert labels[:3].tolist() == ["0.5", "2.0", "3.0"]  # as they are written is said by all of them
    assert ids.tolist() == [f"s{i}" for i in range(25)]


def test_lists_in_blocks(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": list(X[:, 0]), "b": list(X[:, 1])}).to_parquet(path, row_group_size=7)
    np.testing.assert_array_equal(np.stack(read(path)[0]), X)


def long(cases):
    return pd.DataFrame(
        {
            "id": np.repeat([f"s{i}" for i in range(len(cases))], 9),
            "time": np.tile(np.arange(9)[::-1], len(cases)),
            "label": np.repeat(LABELS[: len(cases)].astype(int), 9),
            "a": cases[:, 0, ::-1].ravel(),
            "b": cases[:, 1, ::-1].ravel(),
        }
    )


def test_a_long_table_in_blocks(tmp_path):
    path = tmp_path / "a.parquet"
    long(X).to_parquet(path, row_group_size=13)
    series, labels, ids = read(path)
    np.testing.assert_array_equal(np.stack(series), X)
    assert labels.tolist() == LABELS.astype(int).astype(str).tolist()
    assert ids.tolist() == [f"s{i}" for i in range(25)]


def test_a_large_long_table_in_another_order_is_rejected_and_a_small_one_read(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    long(X).sort_values("time", kind="stable").to_parquet(path, row_group_size=13)
    with pytest.raises(InputError, match="are apart; sort it by id"):
        list(stream(path).blocks)
    monkeypatch.setattr(streams, "WHOLE_BYTES", 1 << 20)
    np.testing.assert_array_equal(np.stack(next(stream(path).blocks).series), X)


def test_a_wrong_cell_is_named_by_its_row_in_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame({"a": list(X[:, 0])})
    frame.at[17, "a"] = None
    frame.to_parquet(path, row_group_size=7)
    with pytest.raises(InputError, match="row 18, column 'a' is not a list of numbers"):
        list(stream(path).blocks)


def test_a_corpus_in_blocks(tmp_path):
    level = 101_325 + 0.01 * RNG.normal(size=(3, 60))
    np.savez(tmp_path / "a.npz", X=np.concatenate([X[:, 0], X[:, 1]]), y=np.tile(LABELS, 2))
    np.savez(tmp_path / "b.npz", X=level)
    open_corpus([str(tmp_path / "a.npz"), str(tmp_path / "b.npz")], data_dir=tmp_path / "corpora", max_length=50)
    assert is_corpus(tmp_path / "corpora")
    assert not is_corpus(tmp_path)
    opened = open_corpus_stream(tmp_path / "corpora")
    blocks = list(opened.blocks)
    assert opened.count == 56 == sum(len(block.series) for block in blocks)  # the levels are cut in two
    series = [one for block in blocks for one in block.series]
    labels = np.concatenate([block.labels for block in blocks])
    order = np.argsort(np.tile(LABELS, 2), kind="stable")
    np.testing.assert_array_equal(np.stack(series[:50]), np.concatenate([X[:, 0], X[:, 1]])[order])
    assert labels[:50].tolist() == [f"a/{label:.0f}" for label in np.tile(LABELS, 2)[order]]
    np.testing.assert_allclose(np.concatenate(series[50:]), level.ravel(), atol=1e-9)
    part = next((tmp_path / "corpora" / "series_corpus").glob("b-*/*"))
    assert open_corpus_stream(part).count == 6
    np.savez(tmp_path / "b.npz", X=2 * level)
    open_corpus([str(tmp_path / "b.npz")], data_dir=tmp_path / "corpora", max_length=50)
    with pytest.raises(InputError, match="has source b more than once; pass one part"):
        open_corpus_stream(tmp_path / "corpora")
    with pytest.raises(InputError, match="has no corpus"):
        open_corpus_stream(tmp_path / "nowhere")
    (part / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged, or is not a corpus"):
        open_corpus_stream(part)


class Bomb:
    """Unpickled, it would leave a trace."""

    def __reduce__(self):
        return (open, ("unpickled", "w"))


def npz(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def header(shape, descr="<f4", *, version=(1, 0)):
    buffer = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


MAGIC = b"\x93NUMPY"
HARMFUL = {
    "objects": lambda: _saved(np.array([Bomb(), Bomb()], dtype=object)),
    "pickle": lambda: pickle.dumps(Bomb()),
    "empty": lambda: b"",
    "text": lambda: b"1,2\n3,4\n",
    "truncated": lambda: _saved(X)[:-5],
    "half a header": lambda: MAGIC + b"\x01\x00\xff\xff{",
    "too many rows": lambda: header((10**12, 4)) + bytes(64),
    "rows too long": lambda: header((2, 10**13)) + bytes(64),
    "overflowing": lambda: header((2**40, 2**40)) + bytes(64),
    "code": lambda: MAGIC + b"\x01\x00" + (66).to_bytes(2, "little") + b"__import__('os').system('touch unpickled')".ljust(65) + b"\n",
    "another version": lambda: MAGIC + b"\x09\x00" + bytes(80),
    "object cells": lambda: header((2, 3), "|O") + bytes(48),
}


def _saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("form", ["npz", "npy"])
def test_harmful_arrays_are_rejected_and_nothing_is_run(tmp_path, monkeypatch, name, form):
    monkeypatch.chdir(tmp_path)
    content = HARMFUL[name]()
    path = tmp_path / f"a.{form}"
    path.write_bytes(content) if form == "npy" else npz(path, X=content)
    with pytest.raises(InputError, match=rf"a\.{form}"):
        list(stream(path).blocks)
    assert not (tmp_path / "unpickled").exists()


def test_harmful_labels_are_rejected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npz(tmp_path / "a.npz", X=_saved(X), y=HARMFUL["objects"]())
    with pytest.raises(InputError, match="without objects"):
        stream(tmp_path / "a.npz")
    assert not (tmp_path / "unpickled").exists()


def test_members_that_would_escape_are_not_unpacked(tmp_path):
    npz(tmp_path / "a.npz", **{"../X": _saved(X), "X": _saved(X)})
    list(stream(tmp_path / "a.npz").blocks)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert not (tmp_path.parent / "X.npy").exists()


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_damaged_parquet_is_rejected(tmp_path, where):
    path = tmp_path / "a.parquet"
    write_wide(path, X[:, 0])
    content = bytearray(path.read_bytes())
    content[int(where * len(content)) :] = b""
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        list(stream(path).blocks)


def test_a_parquet_that_would_fill_the_memory_is_rejected(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pd.DataFrame({f"t{i}": np.zeros(50_000) for i in range(20)}).to_parquet(path)
    monkeypatch.setattr(formats, "MIN_VALUES", 1000)
    monkeypatch.setattr(formats, "MAX_VALUES_PER_BYTE", 10)
    (files,) = find_datasets(str(path))
    for read in (lambda: open_stream(files, "train"), lambda: files.read_raw("train")):
        with pytest.raises(InputError, match="bytes hold 1000000 values, which would fill the memory"):
            read()


@pytest.mark.parametrize("name", ["a_TRAIN.csv", "a.npz", "a.parquet"])
def test_a_pipe_is_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is not a file, a folder or a bundled dataset"):
        find_datasets(str(tmp_path / name))
    with pytest.raises(InputError, match="has no dataset"):
        find_datasets(str(tmp_path))


def test_what_holds_no_series_is_rejected(tmp_path):
    np.savez(tmp_path / "a.npz", X=X[:0])
    with pytest.raises(InputError, match="has no series"):
        stream(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", X=X, y=LABELS[:3])
    with pytest.raises(InputError, match=r"should be \(cases, \[channels,\] time\)"):
        stream(tmp_path / "b.npz")
