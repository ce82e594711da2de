"""Checkpoints by Orbax that are complete, verified, and never replaced by a worse one.

A checkpoint is a folder named by its step:

    state/         the arrays, as Orbax writes them
    about.json     schema version, step, time, configuration, corpus digest, commit, package versions
    manifest.json  SHA-256 of every other file

It is written beside its place and renamed into it when it is complete (in a bucket: the manifest is written last), so
what bears a number was complete once; the manifest tells whether it still is (Orbax restores wrong values after a flipped
byte, without a word).
"""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nutime_jax.distributed.mesh import fetch, place
from nutime_jax.errors import InputError, extra
from nutime_jax.storage import MANIFEST, error_summary, resolve_path, storage_for

with extra("train"):
    import orbax.checkpoint as ocp

log = logging.getLogger(__name__)

SCHEMA = 1


class CheckpointStore:
    """The checkpoints of one run, in one folder; they are written behind the run's back, one at a time.

    max_to_keep: how many of the newest to keep.
    keep_period: those of steps that are multiples of this are kept for good; 0 is none.
    best_metric: the metric whose best checkpoint is kept aside, "-" before its name if less is better; "" is none.
    first: whether this is the process that writes what is written once. Every process has to save, restore and close.
    """

    def __init__(
        self, directory: str | os.PathLike, *, max_to_keep: int = 2, keep_period: int = 0, best_metric: str = "", first: bool = True
    ):
        self.directory = resolve_path(directory)
        self._place = storage_for(self.directory)
        self.max_to_keep, self.keep_period, self.best_metric = max_to_keep, keep_period, best_metric
        self._first = first
        self._arrays = _Copied(first=first) if self._place.remote else _Shared()
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._finishing: Future | None = None

    def save(self, state: Any, *, step: int, about: dict[str, Any]) -> None:
        """Copies the state, and writes it behind the caller's back; the caller may use the state up at once.

        A checkpoint counts only once it is whole. Older ones go after that, never before. What goes wrong is told by the
        next call, or by `close`.

        Raises:
            InputError: this or the last checkpoint could not be written.
        """
        self.wait()
        name = f"{step:08d}"
        pending = self._place.pending_path(self.directory, name)
        with self._told(step):
            if self._first:
                self._place.prepare_save(self.directory, name)
            self._arrays.save(pending / "state", state)
        self._finishing = self._behind.submit(self._finish, pending, step, about)

    def wait(self) -> None:
        """Returns when the last checkpoint is whole.

        Raises:
            InputError: it could not be written.
        """
        finishing, self._finishing = self._finishing, None
        if finishing is not None:
            finishing.result()

    def close(self) -> None:
        """Waits for the last checkpoint, and ends."""
        try:
            self.wait()
        finally:
            self._behind.shutdown()
            self._arrays.close()

    def restore(self, path: Path, like: Any) -> Any:
        """The state in a checkpoint, with the shapes and shardings of `like` (abstract or concrete), on any devices."""
        with self._place.local_copy(path) as here:
            return self._arrays.restore(here / "state", like)

    def _finish(self, pending: Path, step: int, about: dict[str, Any]) -> None:
        with self._told(step):
            self._arrays.wait()
            if not self._first:
                return
            about = {"schema": SCHEMA, "step": step, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **about}
            _write_json(pending / "about.json", about)
            _write_json(pending / MANIFEST, storage_for(pending).checksums(pending))
            self._place.commit(pending, self.directory / f"{step:08d}")
            for old in self._superseded(step):
                self._place.delete(old)
            self._place.remove_incomplete(self.directory)

    def _superseded(self, step: int) -> list[Path]:
        """Intact checkpoints older than `step` that nothing keeps: what is damaged pushes nothing out."""
        older = [path for path in steps(self.directory) if int(path.name) < step and find_damage(path) is None]
        old = older[: max(0, len(older) - self.max_to_keep + 1)]
        kept = best_checkpoint(self.directory, self.best_metric)
        return [path for path in old if path != kept and not (self.keep_period and int(path.name) % self.keep_period == 0)]

    @contextlib.contextmanager
    def _told(self, step: int) -> Iterator[None]:
        """Whatever the disk, and the libraries that speak for it, have to say becomes a sentence."""
        try:
            yield
        except self._place.write_errors as error:
            raise InputError(
                f"checkpoint {step} cannot be written to {self.directory} ({error_summary(error)}); the last good one stays: "
                "make room or mend the folder, and give the same command again"
            ) from error


class _Shared:
    """Arrays in a folder that all processes see: each writes and reads what its devices hold."""

    def __init__(self):
        self._checkpointer = ocp.StandardCheckpointer()
        self.wait, self.close = self._checkpointer.wait_until_finished, self._checkpointer.close

    def save(self, path: Path, state: Any) -> None:
        self._checkpointer.save(path, state)

    def restore(self, path: Path, like: Any) -> Any:
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        return self._checkpointer.restore(path, like)


class _Copied:
    """Arrays in folders of which every process has its own copy: the first one writes them whole, every one reads its own.

    No process waits for another, but for what the first one lacks of the arrays.
    """

    def __init__(self, *, first: bool):
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        self._checkpointer, self._first = ocp.StandardCheckpointer(multiprocessing_options=alone), first
        self.wait, self.close = self._checkpointer.wait_until_finished, self._checkpointer.close

    def save(self, path: Path, state: Any) -> None:
        whole = fetch(state)
        if self._first:
            self._checkpointer.save(path, whole)

    def restore(self, path: Path, like: Any) -> Any:
        whole = self._checkpointer.restore(path, jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like))
        return place(whole, jax.tree.map(lambda leaf: leaf.sharding, like))


def steps(directory: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return storage_for(directory).list_steps(directory)


def latest(directory: str | os.PathLike) -> Path | None:
    """The newest intact checkpoint below `directory`; None if there never was one.

    Raises:
        InputError: there are checkpoints, and none is intact, or the newest has another schema.
    """
    problems = []
    for path in reversed(steps(resolve_path(directory))):
        problem = find_damage(path)
        if problem is None:
            read_about(path)  # another schema is a reason to stop, not to take an older checkpoint
            if problems:
                log.warning("using checkpoint %s, because a newer one is damaged: %s", path, "; ".join(problems))
            return path
        problems.append(problem)
    if problems:
        raise InputError(f"no checkpoint in {directory} is intact ({'; '.join(problems)}); put back a copy or use a new workdir")
    return None


def best_checkpoint(directory: Path, metric: str) -> Path | None:
    """The intact checkpoint at which a metric was best, the newest of equals; None where none was measured.

    Args:
        metric: its name; "-" before it if less is better; "" is none.
    """
    sign, name = (-1, metric[1:]) if metric.startswith("-") else (1, metric)
    found = []
    for path in steps(directory) if name else []:
        if find_damage(path) is None:
            value = sign * (read_about(path).get("metrics") or {}).get(name, math.nan)
            found += [(value, int(path.name), path)] if math.isfinite(value) else []
    return max(found)[2] if found else None


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None when every file is what was written."""
    where = storage_for(path)
    try:
        manifest = json.loads(where.read(path / MANIFEST))
        found = where.checksums(path)
    except where.corruption_errors as error:
        return f"{path.name} cannot be read ({error})"
    for name in sorted(manifest.keys() | found.keys()):
        if manifest.get(name) != found.get(name):
            state = "is missing" if name not in found else "is foreign" if name not in manifest else "has changed"
            return f"{path.name}: {name} {state}"
    return None


def read_about(path: Path) -> dict[str, Any]:
    """The description of a checkpoint.

    Raises:
        InputError: it was written under another schema.
    """
    about = json.loads(storage_for(path).read(path / "about.json"))
    if about.get("schema") != SCHEMA:
        raise InputError(f"checkpoint {path} has schema {about.get('schema')}, this version reads {SCHEMA}; use the version that wrote it")
    return about


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of the state in a checkpoint, as NumPy arrays, whatever devices wrote them."""
    checkpointer = ocp.PyTreeCheckpointer()
    with storage_for(path).local_copy(path) as here:
        tree = checkpointer.metadata(here / "state").item_metadata.tree
        wanted = {name: tree[name] for name in names}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        restore = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        return checkpointer.restore(here / "state", args=restore)


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint that a path means: itself, or the newest intact one of a workdir or of a folder of checkpoints.

    WORKDIR/best is the one that `run.best_metric` of the run's configuration names.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = resolve_path(path)
    held = storage_for(path).list_names(path)
    if path.name == "best" and not held:
        return _find_best(path.parent)
    if "state" in held:
        if problem := find_damage(path):
            raise InputError(f"checkpoint {problem}; use another one")
        return path
    found = latest(path / "checkpoints") or latest(path)
    if found is None:
        raise InputError(f"{path} holds no checkpoint; give a workdir of `nutime pretrain` or one folder of its checkpoints")
    return found


def _find_best(workdir: Path) -> Path:
    metric = read_about(find_checkpoint(workdir))["config"]["run"]["best_metric"]
    found = best_checkpoint(workdir / "checkpoints", metric)
    if found is None:
        raise InputError(f"no checkpoint in {workdir} has a value of run.best_metric, which is {metric!r}; give {workdir} for the newest")
    return found


def _write_json(path: Path, value: Any) -> None:
    storage_for(path).write(path, json.dumps(value, indent=1).encode())
