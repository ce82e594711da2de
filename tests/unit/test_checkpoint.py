import gc
import os
import shutil
import signal
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.errors import InputError
from nutime_jax.training import checkpoints as checkpoint
from nutime_jax.training.checkpoints import (
    CheckpointManager,
    find_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    read_arrays,
    read_metadata,
    set_newer_aside,
    verify_checkpoint,
)

STATE = {"params": {"w": jnp.arange(12.0).reshape(3, 4)}, "step": jnp.int32(7)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints at steps 6 and 9; that at step 3 was deleted."""
    folder = tmp_path_factory.mktemp("saved")
    store = CheckpointManager(folder, max_to_keep=2)
    for step in (3, 6, 9):
        state = jax.tree.map(lambda leaf, step=step: leaf + step, STATE)
        save(store, state, step=step, metadata={"config": {"a": 1}})
    store.close()
    return folder


@pytest.fixture
def store(saved, tmp_path):
    store = CheckpointManager(shutil.copytree(saved, tmp_path / "checkpoints"), max_to_keep=2)
    yield store
    store.close()


def save(store, state, *, step, metadata):
    store.save(state, step=step, metadata=metadata)
    store.wait()


def test_what_was_saved_is_restored_and_old_ones_go(store):
    assert [path.name for path in list_checkpoints(store.directory)] == ["00000006", "00000009"]
    path = latest_checkpoint(store.directory)
    restored = store.restore(path, STATE)
    jax.tree.map(np.testing.assert_array_equal, restored, jax.tree.map(lambda leaf: leaf + 9, STATE))
    assert read_metadata(path)["config"] == {"a": 1}
    np.testing.assert_array_equal(read_arrays(path, ("params",))["params"]["w"], STATE["params"]["w"] + 9)
    assert sorted(path.name for path in store.directory.iterdir()) == ["00000006", "00000009"]


def damage(path, how):
    if how == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "delete":
        path.unlink()
    elif how == "flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncate", "delete", "flip"])
def test_every_damaged_file_is_found_and_the_last_good_checkpoint_used(store, how, caplog):
    newest = store.directory / "00000009"
    files = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size and path.name not in checkpoint.UNSIGNED[1:]]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        damage(path, how)
        assert verify_checkpoint(newest), path
        caplog.clear()
        assert latest_checkpoint(store.directory).name == "00000006"
        assert "because a newer one is damaged: 00000009" in caplog.text
        path.write_bytes(content)
    assert verify_checkpoint(newest) is None
    for name in checkpoint.UNSIGNED[1:]:  # nothing reads them
        damage(newest / name, how)
    assert latest_checkpoint(store.directory) == newest
    jax.tree.map(np.testing.assert_array_equal, store.restore(newest, STATE), jax.tree.map(lambda leaf: leaf + 9, STATE))
    save(CheckpointManager(store.directory), STATE, step=12, metadata={})
    assert latest_checkpoint(store.directory).name == "00000012"


def test_a_foreign_file_is_damage(store):
    (store.directory / "00000009" / "stray").write_text("")
    assert "stray is unexpected" in verify_checkpoint(store.directory / "00000009")


def test_without_an_intact_checkpoint_it_rejects(store):
    for path in list_checkpoints(store.directory):
        damage(path / "about.json", "truncate")
    with pytest.raises(InputError, match=r"no checkpoint in .* is intact"):
        latest_checkpoint(store.directory)


def test_saving_over_a_damaged_checkpoint_keeps_it_aside(store):
    for name in ("damaged-00000009", "damaged-00000009-2"):
        damage(store.directory / "00000009" / "about.json", "flip")
        set_newer_aside(latest_checkpoint(store.directory))
        save(CheckpointManager(store.directory), STATE, step=9, metadata={})
        assert latest_checkpoint(store.directory).name == "00000009"
        assert (store.directory / name).is_dir()
        assert (store.directory / "00000006").is_dir()


def test_leftovers_of_a_kill_are_swept_and_never_used(store):
    (store.directory / f"00000012{checkpoint._PENDING}" / "state").mkdir(parents=True)
    assert latest_checkpoint(store.directory).name == "00000009"
    save(CheckpointManager(store.directory), STATE, step=15, metadata={})
    assert sorted(path.name for path in store.directory.iterdir()) == ["00000009", "00000015"]


@pytest.mark.parametrize(("best", "kept"), [("probe_accuracy", "00000006"), ("-loss", "00000003"), ("", None)])
def test_the_best_is_kept_aside(tmp_path, best, kept):
    store = CheckpointManager(tmp_path / "checkpoints", max_to_keep=1, best_metric=best)
    measured = {
        3: {"loss": 0.1, "probe_accuracy": 0.5},
        6: {"loss": 0.3, "probe_accuracy": 0.9},
        9: {"loss": 0.2},
        12: {"loss": float("nan"), "probe_accuracy": 0.9},
    }
    measured[12]["probe_accuracy"] = 0.7
    for step, metrics in measured.items():
        save(store, STATE, step=step, metadata={"config": {"run": {"best_metric": best}}, "metrics": metrics})
    store.close()
    assert [path.name for path in list_checkpoints(store.directory)] == [*([kept] if kept else []), "00000012"]
    assert find_checkpoint(tmp_path).name == "00000012"
    if kept:
        assert find_checkpoint(tmp_path / "best").name == kept
    else:
        with pytest.raises(InputError, match=r"no checkpoint in .* has a value of run.best_metric, which is ''"):
            find_checkpoint(tmp_path / "best")


def test_multiples_are_kept_for_good(tmp_path):
    store = CheckpointManager(tmp_path, max_to_keep=1, keep_period=10)
    for step in (5, 10, 15, 20, 25):
        save(store, STATE, step=step, metadata={})
    store.close()
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [10, 20, 25]


def test_a_state_may_be_used_up_while_it_is_written(tmp_path):
    """Writing goes on behind the caller's back, who gives the same memory to the next steps at once."""
    use_up = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    store = CheckpointManager(tmp_path, max_to_keep=3)
    for step in (1, 2, 3):
        state = jax.jit(lambda step: {"w": jnp.full((512, 1024), step, jnp.float32)})(step)
        store.save(state, step=step, metadata={})
        for _ in range(5):
            state = use_up(state)
    store.close()
    for step, path in enumerate(list_checkpoints(tmp_path), 1):
        np.testing.assert_array_equal(read_arrays(path, ("w",))["w"], step)


def test_what_goes_wrong_behind_is_told_and_the_last_good_one_stays(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        store.save(STATE, step=12, metadata={})
        with pytest.raises(InputError, match=r"Cannot write checkpoint 12 .*No space left on device.* is intact\. Free disk space"):
            store.wait()
    assert latest_checkpoint(store.directory).name == "00000009"
    save(store, STATE, step=15, metadata={})
    assert [path.name for path in list_checkpoints(store.directory)] == ["00000009", "00000015"]
    with monkeypatch.context() as patch:  # another process has ended: status 4, not 2
        lost = ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
        patch.setattr(store._orbax, "save", lambda *_, **__: (_ for _ in ()).throw(lost))
        with pytest.raises(ValueError, match="Gloo") as error:
            store.save(STATE, step=18, metadata={})
        assert error.value is lost


def test_what_orbax_reports_after_a_failed_write_stays_silent(tmp_path, monkeypatch):
    """Threads of Orbax report each pending write when the manager is closed, or later."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    store = CheckpointManager(tmp_path)
    monkeypatch.setattr(store._orbax, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="Cannot write checkpoint 12"):
        store.save(STATE, step=12, metadata={})
    store.close()
    for text in ("Event loop is closed", "another error"):
        sys.unraisablehook(SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(text)))
    assert [str(one.exc_value) for one in reported] == ["another error"]


def test_an_interrupt_during_garbage_collection_is_not_lost(store):
    callback = lambda phase, info: signal.raise_signal(signal.SIGINT) if phase == "stop" else None  # noqa: E731
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _collect_and_wait(callback)
    finally:
        signal.signal(signal.SIGINT, previous)


def _collect_and_wait(callback):
    gc.callbacks.append(callback)
    gc.collect()  # drops the exception
    gc.callbacks.remove(callback)
    time.sleep(60)


def test_another_schema_is_rejected_and_no_older_checkpoint_taken_instead(store, monkeypatch):
    monkeypatch.setattr(checkpoint, "SCHEMA", 99)
    save(store, STATE, step=12, metadata={})
    monkeypatch.undo()
    with pytest.raises(InputError, match="has schema 99, this version reads 1"):
        latest_checkpoint(store.directory)


def test_damaged_checkpoints_do_not_push_out_good_ones(store, monkeypatch):
    damage(store.directory / "00000009" / "about.json", "flip")
    save(CheckpointManager(store.directory), STATE, step=12, metadata={})
    assert [path.name for path in list_checkpoints(store.directory)] == ["00000006", "00000009", "00000012"]
    verified = []
    monkeypatch.setattr(checkpoint, "verify_checkpoint", lambda path: verified.append(path.name) or verify_checkpoint(path))
    another = CheckpointManager(store.directory, max_to_keep=9)
    for step in (15, 18):
        save(another, STATE, step=step, metadata={})
    assert [int(path.name) for path in list_checkpoints(store.directory)] == [6, 9, 12, 15, 18]
    assert verified == ["00000012", "00000009", "00000006"]  # once each, intact or not


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_a_kill_at_any_file_operation_loses_nothing(tmp_path, monkeypatch):
    """Every rename, removal and description is made to be the last thing that the process did."""
    left = [0]

    def mortal(function):
        def call(*args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    for survived in [*range(8), *range(8, 80, 5)]:  # not every file of a deletion: they are alike
        directory = tmp_path / str(survived)
        store = CheckpointManager(directory, max_to_keep=1)
        save(store, STATE, step=3, metadata={})
        left[0] = survived
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, "rename", mortal(os.rename))
            patch.setattr(checkpoint, "_write_json", mortal(checkpoint._write_json))
            patch.setattr(checkpoint.os, "unlink", mortal(os.unlink))
            patch.setattr(checkpoint.os, "rmdir", mortal(os.rmdir))
            try:
                save(store, jax.tree.map(lambda leaf: leaf + 6, STATE), step=6, metadata={})
                finished = True
            except Killed:
                finished = False
        found = latest_checkpoint(directory)
        store = CheckpointManager(directory, max_to_keep=1)
        restored = store.restore(found, STATE)
        np.testing.assert_array_equal(restored["step"], 7 if found.name == "00000003" else 13)
        save(store, STATE, step=9, metadata={})
        assert [path.name for path in directory.iterdir()] == ["00000009"]
        if finished:
            break
    assert finished
    assert survived > 5


def test_a_path_means_a_checkpoint(store, tmp_path):
    newest = store.directory / "00000009"
    assert find_checkpoint(tmp_path) == find_checkpoint(store.directory) == find_checkpoint(newest) == newest
    with pytest.raises(InputError, match="holds no checkpoint"):
        find_checkpoint(tmp_path / "nothing")
    damage(newest / "about.json", "delete")
    with pytest.raises(InputError, match="use another one"):
        find_checkpoint(newest)


@pytest.mark.parametrize("content", ["null", "[]", "3", '"text"', "[" * 200_000, "{", "{}", '{"about.json": null}'])
@pytest.mark.parametrize("name", ["manifest.json", "about.json"])
def test_other_json_is_damage(store, name, content):
    newest = list_checkpoints(store.directory)[-1]
    (newest / name).write_text(content)
    assert newest.name in verify_checkpoint(newest)
    assert latest_checkpoint(store.directory).name == "00000006"
    if name == "about.json":  # whoever also wrote a new manifest
        with pytest.raises(InputError, match=r"is damaged|has schema None"):
            read_metadata(newest)


def test_missing_metadata_is_damage(store):
    newest = list_checkpoints(store.directory)[-1]
    (newest / "about.json").write_text('{"schema": 1}')
    with pytest.raises(InputError, match=r"about\.json has no 'config'; use another one"):
        read_metadata(newest)["config"]
