"""Orbax checkpoints that are complete, verified, and never replaced by a worse one.

A checkpoint is a directory named by its step:

    state/         arrays, written by Orbax
    about.json     metadata: schema version, step, time, configuration, corpus digest, commit, package versions
    manifest.json  SHA-256 of every other file

It is written under another name and renamed when it is complete (in a bucket the manifest is written last). A directory
named by a step was therefore complete once. The manifest tells whether it is intact: Orbax restores wrong values
silently after a flipped byte.
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

from nutime_jax.distributed.mesh import gather_to_host, shard_tree
from nutime_jax.errors import InputError, extra
from nutime_jax.storage import MANIFEST, error_summary, resolve_path, storage_for

with extra("train"):
    import orbax.checkpoint as ocp

log = logging.getLogger(__name__)

SCHEMA = 1


class CheckpointManager:
    """The checkpoints of a run in one directory, written asynchronously, one at a time.

    max_to_keep: number of newest checkpoints that are retained.
    keep_period: checkpoints at multiples of this many steps are retained; 0 is none.
    best_metric: metric whose best checkpoint is retained; "-" before the name minimises, "" is none.
    is_primary: whether this process writes the metadata. Every process must save, restore and close.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        max_to_keep: int = 2,
        keep_period: int = 0,
        best_metric: str = "",
        is_primary: bool = True,
    ):
        self.directory = resolve_path(directory)
        self._storage = storage_for(self.directory)
        self.max_to_keep, self.keep_period, self.best_metric = max_to_keep, keep_period, best_metric
        self._is_primary = is_primary
        self._arrays = _PerProcessArrays(is_primary=is_primary) if self._storage.remote else _SharedStorageArrays()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending_save: Future | None = None

    def save(self, state: Any, *, step: int, metadata: dict[str, Any]) -> None:
        """Copy the state, then write it asynchronously. The caller may donate the state immediately.

        Older checkpoints are deleted only after the new one is complete. Errors of the write are raised by the next call,
        or by `close`.

        Raises:
            InputError: this or the last checkpoint could not be written.
        """
        self.wait()
        name = f"{step:08d}"
        pending = self._storage.pending_path(self.directory, name)
        with self._as_input_error(step):
            if self._is_primary:
                self._storage.prepare_save(self.directory, name)
            self._arrays.save(pending / "state", state)
        self._pending_save = self._executor.submit(self._finish, pending, step, metadata)

    def wait(self) -> None:
        """Return when the last checkpoint is complete.

        Raises:
            InputError: it could not be written.
        """
        pending, self._pending_save = self._pending_save, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the last checkpoint, then stop the background thread."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()
            self._arrays.close()

    def restore(self, path: Path, target: Any) -> Any:
        """Return the state of a checkpoint with the shapes and shardings of `target` (abstract or concrete)."""
        with self._storage.local_copy(path) as local:
            return self._arrays.restore(local / "state", target)

    def _finish(self, pending: Path, step: int, metadata: dict[str, Any]) -> None:
        with self._as_input_error(step):
            self._arrays.wait()
            if not self._is_primary:
                return
            created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            _write_json(pending / "about.json", {"schema": SCHEMA, "step": step, "created": created, **metadata})
            _write_json(pending / MANIFEST, storage_for(pending).checksums(pending))  # it is local until it is complete
            self._storage.commit(pending, self.directory / f"{step:08d}")
            for old in self._superseded(step):
                self._storage.delete(old)
            self._storage.remove_incomplete(self.directory)

    def _superseded(self, step: int) -> list[Path]:
        """Intact checkpoints before `step` that no rule retains. A corrupt checkpoint supersedes none."""
        older = [path for path in list_checkpoints(self.directory) if int(path.name) < step]
        older = [path for path in older if verify_checkpoint(path) is None]
        old = older[: max(0, len(older) - self.max_to_keep + 1)]
        best = best_checkpoint(self.directory, self.best_metric)
        return [path for path in old if path != best and not self._is_periodic(int(path.name))]

    def _is_periodic(self, step: int) -> bool:
        return bool(self.keep_period) and step % self.keep_period == 0

    @contextlib.contextmanager
    def _as_input_error(self, step: int) -> Iterator[None]:
        try:
            yield
        except self._storage.write_errors as error:
            raise InputError(
                f"Cannot write checkpoint {step} to {self.directory} ({error_summary(error)}). The previous checkpoint is "
                "intact. Free disk space or fix permissions, then rerun the same command."
            ) from error


class _SharedStorageArrays:
    """Arrays in a directory that all processes share: each writes and reads the shards of its devices."""

    def __init__(self):
        self._checkpointer = ocp.StandardCheckpointer()
        self.wait, self.close = self._checkpointer.wait_until_finished, self._checkpointer.close

    def save(self, path: Path, state: Any) -> None:
        self._checkpointer.save(path, state)

    def restore(self, path: Path, target: Any) -> Any:
        def abstract(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

        return self._checkpointer.restore(path, jax.tree.map(abstract, target))


class _PerProcessArrays:
    """Arrays in a local directory per process: process 0 writes full arrays, every process reads its own copy.

    No process waits for another, except that process 0 gathers the arrays.
    """

    def __init__(self, *, is_primary: bool):
        index = jax.process_index()
        single = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
        self._checkpointer = ocp.StandardCheckpointer(multiprocessing_options=single)
        self._is_primary = is_primary
        self.wait, self.close = self._checkpointer.wait_until_finished, self._checkpointer.close

    def save(self, path: Path, state: Any) -> None:
        arrays = gather_to_host(state)
        if self._is_primary:
            self._checkpointer.save(path, arrays)

    def restore(self, path: Path, target: Any) -> Any:
        arrays = self._checkpointer.restore(path, jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), target))
        return shard_tree(arrays, jax.tree.map(lambda leaf: leaf.sharding, target))


class _Metadata(dict):
    """Metadata of a checkpoint. A missing key is an InputError."""

    def __init__(self, path: Path, fields: dict[str, Any]):
        super().__init__(fields)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"checkpoint {self._path} is damaged: about.json has no {key!r}; use another one")


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoint directories, oldest first."""
    return storage_for(directory).list_steps(directory)


def latest_checkpoint(directory: str | os.PathLike) -> Path | None:
    """Return the newest intact checkpoint of a directory; None if there is no checkpoint.

    Raises:
        InputError: no checkpoint is intact, or the newest has another schema.
    """
    problems = []
    for path in reversed(list_checkpoints(resolve_path(directory))):
        problem = verify_checkpoint(path)
        if problem is None:
            read_metadata(path)  # another schema is an error, not a reason to use an older checkpoint
            if problems:
                log.warning("using checkpoint %s, because a newer one is damaged: %s", path, "; ".join(problems))
            return path
        problems.append(problem)
    if problems:
        advice = "restore a copy, or use a new workdir"
        raise InputError(f"no checkpoint in {directory} is intact ({'; '.join(problems)}); {advice}")
    return None


def best_checkpoint(directory: Path, metric: str) -> Path | None:
    """Return the intact checkpoint with the best value of a metric, the newest of equals; None if none has a value.

    Args:
        metric: its name; "-" before the name minimises, "" is none.
    """
    if not metric:
        return None
    sign, name = (-1, metric[1:]) if metric.startswith("-") else (1, metric)
    candidates = []
    for path in list_checkpoints(directory):
        if verify_checkpoint(path) is None:
            value = (read_metadata(path).get("metrics") or {}).get(name, math.nan)
            if math.isfinite(value):
                candidates.append((sign * value, int(path.name), path))
    return max(candidates)[2] if candidates else None


def verify_checkpoint(path: Path) -> str | None:
    """Return the damage of a checkpoint as a text; None if every file has its checksum."""
    storage = storage_for(path)
    try:
        manifest = _read_object(path / MANIFEST)
        checksums = storage.checksums(path)
    except (*storage.corruption_errors, RecursionError) as error:
        return f"{path.name} cannot be read ({error})"
    for name in sorted(manifest.keys() | checksums.keys()):
        if manifest.get(name) != checksums.get(name):
            state = "is missing" if name not in checksums else "is unexpected" if name not in manifest else "has changed"
            return f"{path.name}: {name} {state}"
    return None


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint.

    Raises:
        InputError: it cannot be read, or has another schema; so does a look-up of a missing key.
    """
    try:
        metadata = _read_object(path / "about.json")
    except (ValueError, RecursionError) as error:
        raise InputError(f"checkpoint {path} is damaged: about.json is not metadata ({error}); use another one") from error
    if metadata.get("schema") != SCHEMA:
        version = f"checkpoint {path} has schema {metadata.get('schema')}, this version reads {SCHEMA}"
        raise InputError(f"{version}; use the version that wrote it")
    return _Metadata(path, metadata)


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return fields of the state of a checkpoint as NumPy arrays, independent of the devices that wrote them."""
    checkpointer = ocp.PyTreeCheckpointer()
    with storage_for(path).local_copy(path) as local:
        tree = checkpointer.metadata(local / "state").item_metadata.tree
        fields = {name: tree[name] for name in names}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), fields)
        restore = ocp.args.PyTreeRestore(item=fields, restore_args=as_numpy, partial_restore=True)
        return checkpointer.restore(local / "state", args=restore)


def find_checkpoint(path: str | os.PathLike) -> Path:
    """Return the checkpoint of a path: itself, or the newest intact checkpoint of a workdir or of its checkpoints.

    WORKDIR/best is the best checkpoint by `run.best_metric` of the run.

    Raises:
        InputError: no checkpoint exists, or it is damaged.
    """
    path = resolve_path(path)
    names = storage_for(path).list_names(path)
    if path.name == "best" and not names:
        return _find_best(path.parent)
    if "state" in names:
        if problem := verify_checkpoint(path):
            raise InputError(f"checkpoint {problem}; use another one")
        return path
    found = latest_checkpoint(path / "checkpoints") or latest_checkpoint(path)
    if found is None:
        raise InputError(f"{path} holds no checkpoint; pass a workdir of `nutime pretrain` or a directory of its checkpoints")
    return found


def _find_best(workdir: Path) -> Path:
    metric = read_metadata(find_checkpoint(workdir))["config"]["run"]["best_metric"]
    best = best_checkpoint(workdir / "checkpoints", metric)
    if best is None:
        problem = f"no checkpoint in {workdir} has a value of run.best_metric, which is {metric!r}"
        raise InputError(f"{problem}; pass {workdir} for the newest")
    return best


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(storage_for(path).read(path))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def _write_json(path: Path, value: Any) -> None:
    storage_for(path).write(path, json.dumps(value, indent=1).encode())
