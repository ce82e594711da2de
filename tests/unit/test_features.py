import fcntl
import signal

import numpy as np
import pandas as pd
import pytest

from nutime_jax.data.datasets import find_datasets
from nutime_jax.data.features import open_features
from nutime_jax.errors import InputError

ROWS = (np.random.default_rng(0).normal(size=(7, 3)) * [1e-30, 1, 1e30]).astype(np.float32)
LABELS, IDS = np.array(list("abcabca")), np.array([f"case, {i}" for i in range(7)])


def write(path, rows=ROWS, labels=LABELS, ids=IDS):
    with open_features(path) as file:
        for part in (slice(0, 4), slice(4, 5), slice(5, 7)):
            file.write(rows[part], labels=None if labels is None else labels[part], ids=None if ids is None else ids[part])
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return path


def test_arrays(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    np.testing.assert_array_equal(np.load(write(tmp_path / "a" / "f.npy")), ROWS)
    with np.load(write(tmp_path / "b" / "f.npz"), allow_pickle=False) as file:
        assert sorted(file.files) == ["features", "ids", "labels"]
        np.testing.assert_array_equal(file["features"], ROWS)
        np.testing.assert_array_equal(file["labels"], LABELS)
        np.testing.assert_array_equal(file["ids"], IDS)
        assert file["features"].dtype == np.float32
    cube = np.stack([ROWS, -ROWS], axis=1)
    with np.load(write(tmp_path / "b" / "f.npz", cube, None, None)) as file:
        assert file.files == ["features"]
        np.testing.assert_array_equal(file["features"], cube)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_come_back_to_the_bit_and_are_read_as_series(tmp_path, suffix):
    path = write(tmp_path / f"f{suffix}")
    frame = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert frame.columns.tolist() == ["id", "label", "f0", "f1", "f2"]
    assert frame["id"].tolist() == IDS.tolist()
    np.testing.assert_array_equal(frame.iloc[:, 2:].to_numpy(np.float32), ROWS)
    cases = find_datasets(str(path))[0].read("train")
    assert cases.labels.tolist() == LABELS.tolist()
    assert cases.ids.tolist() == IDS.tolist()
    with pytest.raises(InputError, match="make no table"):
        write(path, np.stack([ROWS, ROWS], axis=1), None, None)
    assert path.stat().st_size  # the old one is still there


def test_what_a_kill_or_sigterm_left_is_removed(tmp_path):
    left, used = tmp_path / ".f.npy-abc", tmp_path / ".f.npy-def"
    for folder in (left, used):
        folder.mkdir()
        (folder / ".lock").touch()
        (folder / "f.npy").write_bytes(bytes(100))
    with (used / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(SystemExit) as stopped:
            preempted(tmp_path / "f.npy")
    assert stopped.value.code == 143
    assert [path.name for path in tmp_path.iterdir()] == [used.name]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def preempted(path):
    with open_features(path) as file:
        file.write(ROWS, labels=None, ids=None)
        signal.raise_signal(signal.SIGTERM)


def interrupted(path):
    with open_features(path) as file:
        file.write(ROWS, labels=None, ids=None)
        raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_an_error_leaves_nothing_and_replaces_nothing(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_where_nothing_can_be_written_is_rejected(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    for name, message in [
        ("f.txt", "has no suffix"),
        ("f", "has no suffix"),
        ("no/f.npy", "does not exist"),
        ("folder.npy", "is a folder"),
    ]:
        with pytest.raises(InputError, match=message), open_features(tmp_path / name):
            pass
