import errno
import json
import os

import jax
import numpy as np
import pytest

from nutime_jax import storage
from nutime_jax.cli.main import main
from nutime_jax.config import load_config
from nutime_jax.distributed.mesh import make_mesh, replicated_sharding, shard_tree
from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Result, read_rows, write_rows
from nutime_jax.storage import is_remote, list_names, lock, read_checked, resolve_path, write_checked
from nutime_jax.training.checkpoints import (
    CheckpointManager,
    find_checkpoint,
    latest_checkpoint,
    read_arrays,
    read_metadata,
    set_newer_aside,
    verify_checkpoint,
)
from nutime_jax.training.loop import pretrain
from nutime_jax.training.metrics import MetricWriter

VALUES = {"params": {"w": np.arange(12.0, dtype=np.float32).reshape(3, 4)}, "step": np.int32(7)}


def state(step):
    mesh = make_mesh()
    return shard_tree(jax.tree.map(lambda leaf: leaf + step, VALUES), jax.tree.map(lambda _: replicated_sharding(mesh), VALUES))


def save(store, step, **about):
    store.save(state(step), step=step, metadata=about)
    store.wait()


def names(directory):
    return sorted(list_names(directory))


@pytest.fixture
def store(bucket, request):
    store = CheckpointManager(f"{bucket}/{request.node.name}/checkpoints", max_to_keep=2, best_metric="-loss")
    yield store
    store.close()


@pytest.mark.slow
def test_what_was_saved_is_restored_and_old_ones_go(store):
    for step in (3, 6, 9, 12):
        save(store, step, config={"run": {"best_metric": "-loss"}}, metrics={"loss": float(step)})
    assert names(store.directory) == ["00000003", "00000009", "00000012"]
    workdir = store.directory.parent
    assert find_checkpoint(workdir) == find_checkpoint(store.directory) == store.directory / "00000012"
    assert find_checkpoint(f"{workdir}/best").name == "00000003"
    newest = find_checkpoint(str(store.directory / "00000012"))
    restored = store.restore(newest, state(0))
    jax.tree.map(np.testing.assert_array_equal, restored, jax.tree.map(lambda leaf: leaf + 12, VALUES))
    assert restored["params"]["w"].sharding == state(0)["params"]["w"].sharding
    np.testing.assert_array_equal(read_arrays(newest, ("params",))["params"]["w"], VALUES["params"]["w"] + 12)
    assert read_metadata(newest)["metrics"] == {"loss": 12.0}


@pytest.mark.slow
def test_every_damaged_object_is_found_and_the_last_good_checkpoint_used(store, caplog):
    for step in (3, 6):
        save(store, step)
    newest = store.directory / "00000006"
    objects = sorted(json.loads((newest / "manifest.json").read_bytes()))
    assert len(objects) > 5
    for name in objects:
        content = (newest / name).read_bytes()
        if not content:
            continue
        (newest / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert verify_checkpoint(newest) == f"00000006: {name} has changed"
        (newest / name).write_bytes(content)
    assert verify_checkpoint(newest) is None
    (newest / "state" / "_METADATA").unlink()
    assert latest_checkpoint(store.directory).name == "00000003"
    assert "because a newer one is damaged: 00000006: state/_METADATA is missing" in caplog.text
    set_newer_aside(store.directory / "00000003")
    save(CheckpointManager(store.directory), 6)
    assert names(store.directory) == ["00000003", "00000006", "damaged-00000006"]
    assert latest_checkpoint(store.directory).name == "00000006"


def test_a_network_that_fails_is_no_damage(store, monkeypatch):
    save(store, 3)
    monkeypatch.setattr(type(store.directory), "read_bytes", lambda *_: (_ for _ in ()).throw(OSError("unreachable")))
    with pytest.raises(OSError, match="unreachable"):
        latest_checkpoint(store.directory)


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the threads of killed saves
def test_a_kill_at_any_operation_loses_nothing(bucket, monkeypatch):
    """Every write and every removal of a file is made to be the last thing that the process did."""
    left = [0]

    def mortal(function):
        def call(*args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    directory = resolve_path(f"{bucket}/kills")
    kind = type(directory)
    for kill in range(100):
        store = CheckpointManager(directory, max_to_keep=1)
        save(store, 100 * kill + 3)
        left[0], finished = 3 * kill, False
        with monkeypatch.context() as patch:
            for operation in ("write_bytes", "write_text", "mkdir", "unlink", "rmtree"):
                patch.setattr(kind, operation, mortal(getattr(kind, operation)))
            try:
                save(store, 100 * kill + 6)
                finished = True
            except Killed:
                pass
        found = latest_checkpoint(directory)
        assert int(found.name) - 100 * kill in (3, 6)
        np.testing.assert_array_equal(read_arrays(found, ("step",))["step"], 7 + int(found.name))
        if finished:
            break
    assert finished
    assert kill > 2
    save(CheckpointManager(directory, max_to_keep=1), 100 * kill + 9)
    assert names(directory) == [f"{100 * kill + 9:08d}"]


def test_a_resumed_run_leaves_one_record_of_every_step(bucket):
    workdir = resolve_path(f"{bucket}/metrics")
    writer = MetricWriter(workdir, start=0)
    for step in (1, 2):
        writer.write(step, {"loss": 1.0 / step})
    writer.flush()
    writer.write(3, {"loss": 1.0})
    assert b'"step": 2' in (workdir / "metrics.jsonl").read_bytes().splitlines()[-1]  # a kill here loses what the checkpoint lacks, too
    writer.close()
    writer = MetricWriter(workdir, start=2)
    writer.write(3, {"loss": 0.25})
    writer.close()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_bytes().splitlines()]
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    assert len(list_names(workdir / "tensorboard")) >= 1


def test_results_are_the_same_table(bucket, tmp_path):
    rows = [Result("pretrained", "Ä,b", "ridge", "layer=3", 0, "accuracy", 1 / 3)]
    for folder in (resolve_path(f"{bucket}/results"), tmp_path):
        write_rows(rows, folder / "results.csv")
    assert read_rows(tmp_path / "results.csv") == rows
    assert resolve_path(f"{bucket}/results/results.csv").read_bytes() == (tmp_path / "results.csv").read_bytes()


def test_what_has_no_bucket_is_said(bucket, capfd):
    with pytest.raises(InputError, match=r"workdir gs://nowhere/run cannot be written \(.*\); fix the permissions"):
        pretrain(load_config("smoke", ["data.synthetic_fraction=1"]), "gs://nowhere/run")
    with pytest.raises(InputError, match="gs://bucket/none holds no checkpoint"):
        find_checkpoint(f"{bucket}/none")
    for extra, message in (
        ([], "data.dir is empty, and workdir gs://bucket/run cannot hold a corpus; set data.dir"),
        (["--config.data.dir=gs://bucket/data"], "data.dir is gs://bucket/data; choose a local or mounted directory for the corpus"),
        (["--config.data.synthetic_fraction=1", "--profile"], "a profile cannot be written to gs://bucket/run; omit --profile"),
    ):
        assert main(["pretrain", "--config=smoke", f"--workdir={bucket}/run", *extra]) == 2
        assert message in capfd.readouterr().err


def test_addresses(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("run") == tmp_path / "run"
    assert not is_remote(resolve_path("~/gs"))
    with pytest.raises(InputError, match="s3://b/run is neither a local directory nor gs://BUCKET/FOLDER"):
        resolve_path("s3://b/run")
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"gs://b/run is in a bucket; pip install 'nutime_jax\[gcs\]' to reach it"):
        resolve_path("gs://b/run")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINTR])
def test_a_file_system_without_locks_is_warned_about(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with lock(tmp_path), pytest.raises(InputError, match="is in use by another run"), lock(tmp_path):
        pass
    monkeypatch.setattr(storage.fcntl, "flock", refuse)
    with lock(tmp_path):
        assert f"cannot be locked ({os.strerror(code)}); start no other run in it" in caplog.text


def test_a_damaged_cache_is_no_cache(tmp_path):
    path = tmp_path / "cache"
    assert read_checked(path) is None
    write_checked(path, b"content")
    assert read_checked(path) == b"content"
    content = path.read_bytes()
    for damaged in (content[:-1], content + b" ", b"", bytes([content[0] ^ 1]) + content[1:], content[:-1] + b"T", b"[]"):
        path.write_bytes(damaged)
        assert read_checked(path) is None
    path.unlink()
    os.mkfifo(path)
    assert read_checked(path) is None
