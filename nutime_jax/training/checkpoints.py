"""Checkpoints of a run: written by Orbax, verified by checksums, and never replaced by a worse one.

A checkpoint is a directory named by its step:

    state/         arrays, written by Orbax; each process writes its shards
    about.json     metadata: schema version, step, time, configuration, corpus digest, commit, package versions
    manifest.json  SHA-256 of every other file but Orbax's own marks of a complete checkpoint

Orbax marks it as complete after these files: on disk by its name, in a bucket by a file. Orbax restores wrong values silently
after a flipped byte: the manifest tells whether a checkpoint is intact.
"""

import _thread
import contextlib
import functools
import itertools
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nutime_jax import storage
from nutime_jax.distributed.processes import is_collective_error
from nutime_jax.errors import InputError, extra

with extra("train"):
    import orbax.checkpoint as ocp
    from etils import epath

log = logging.getLogger(__name__)

SCHEMA = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
COMMITTED = ocp.path.atomicity_types.COMMIT_SUCCESS_FILE
UNSIGNED = (MANIFEST, "_CHECKPOINT_METADATA", COMMITTED)
"""Files that are not in the manifest: Orbax writes the last two after it, and nothing reads them."""
_PENDING = ocp.path.atomicity_types.TMP_DIR_SUFFIX


class CheckpointManager:
    """The checkpoints of a run in one directory, written asynchronously, one at a time.

    max_to_keep: number of newest intact checkpoints that are retained.
    keep_period: checkpoints at multiples of this many steps are retained; 0 is none.
    best_metric: metric whose best checkpoint is retained; "-" before the name minimises, "" is none.
    is_primary: whether this process writes the metadata. Every process must create the manager, save, restore and close.

    Raises:
        InputError: the directory cannot be written.
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
        self.directory = storage.resolve_path(directory)
        self._retention = _Retention(self.directory, max_to_keep, keep_period, best_metric, is_primary)
        self._about: dict[str, Any] = {}
        self._saving: int | None = None
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(_without_reports())
        options = ocp.CheckpointManagerOptions(
            step_format_fixed_length=8,
            preservation_policy=self._retention,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            num_deletion_threads=1,
            lightweight_initialize=True,
            save_root_metadata=False,
        )
        try:
            if is_primary:
                _remove_incomplete(self.directory)
            self._orbax = _OrbaxManager(self.directory, options=options)
        except storage.access_errors(self.directory) as error:
            advice = "fix the permissions, or choose another --workdir"
            raise InputError(f"{self.directory} cannot be written ({storage.error_summary(error)}); {advice}") from error

    def save(self, state: Any, *, step: int, metadata: dict[str, Any]) -> None:
        """Copy the state, then write it asynchronously. The caller may donate the state immediately.

        Older checkpoints are deleted only after the new one is complete. Errors of the write are raised by the next call,
        or by `close`: an InputError, or the error of a collective if another process has ended.
        """
        self.wait()
        self._about = {"schema": SCHEMA, "step": step, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **metadata}
        with self._as_input_error(step):
            self._orbax.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), force=True)
        self._saving = step

    def wait(self) -> None:
        """Return when the last checkpoint is complete, or raise an InputError if it could not be written."""
        step, self._saving = self._saving, None
        if step is not None:
            with self._as_input_error(step):
                self._orbax.wait_until_finished()
            self._retention.intact[_name(step)] = True

    def close(self) -> None:
        """Wait for the last checkpoint, then stop the background threads."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(*storage.access_errors(self.directory)):  # raised by `wait`
                self._orbax.close()
        self._quiet.close()

    def restore(self, path: Path, target: Any) -> Any:
        """Return the state of a verified checkpoint with the shapes and shardings of `target` (abstract or concrete)."""
        restored = self._orbax.restore(int(path.name), args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))
        self._retention.intact[path.name] = True
        return restored["state"]

    def _seal(self) -> None:
        """Add metadata and manifest to the arrays. Process 0 calls it when all processes have written theirs."""
        pending = self.directory / (_name(self._about["step"]) + ("" if storage.is_remote(self.directory) else _PENDING))
        _write_json(pending / ABOUT, self._about)
        _write_json(pending / MANIFEST, storage.file_checksums(pending, skip=UNSIGNED))

    @contextlib.contextmanager
    def _as_input_error(self, step: int) -> Iterator[None]:
        try:
            yield
        except storage.access_errors(self.directory) as error:
            self._quiet.pop_all()  # threads of Orbax report the error late
            if is_collective_error(error):  # another process has ended
                raise
            self._orbax.reload()
            problem = f"Cannot write checkpoint {step} to {self.directory} ({storage.error_summary(error)})"
            advice = "The previous checkpoint is intact. Free disk space or fix permissions, then rerun the same command."
            raise InputError(f"{problem}. {advice}") from error


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """Silence Orbax, which logs the errors that it raises, and raises one without content for each write that was pending.

    Python also drops an interrupt (Ctrl-C) that comes while JAX's callback of the garbage collector runs. It is sent again.
    """
    absl, drop, previous = logging.getLogger("absl"), lambda record: False, sys.unraisablehook

    def report(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.1, _thread.interrupt_main).start()
        elif str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    absl.addFilter(drop)
    sys.unraisablehook = report
    yield
    sys.unraisablehook = previous
    absl.removeFilter(drop)


class _OrbaxManager(ocp.CheckpointManager):
    """Orbax's manager without its own questions for a preemption: with the step of a past save, in a thread, they would move
    the counter by which JAX agrees on the step that all processes stop after."""

    def reached_preemption(self, step: int) -> bool:
        return False


@dataclass
class _Retention(ocp.checkpoint_managers.PreservationPolicy):
    """Retain the newest intact checkpoints, all newer ones, the periodic ones and the best of the older ones.

    A checkpoint is verified once: those that this process wrote or restored are known, and the others are read by a thread
    before the first save, while the step compiles. A save costs the same with any number of checkpoints.
    """

    directory: Path
    max_to_keep: int
    keep_period: int
    best_metric: str
    is_primary: bool
    intact: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self):
        self._score = functools.cache(functools.partial(_score, metric=self.best_metric))
        self._verified = ThreadPoolExecutor(1).submit(self._verify) if self.is_primary else None

    def _verify(self) -> tuple[list[Path], Path | None]:
        return self._newest_and_best(list_checkpoints(self.directory)[::-1])

    def _newest_and_best(self, paths: list[Path]) -> tuple[list[Path], Path | None]:
        """Return the newest intact checkpoints but the one that is to be written, and the best intact one."""
        newest = list(itertools.islice(filter(self._is_intact, paths), self.max_to_keep - 1))
        return newest, next(filter(self._is_intact, _rank(paths, self._score)), None)

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> list[bool]:
        """Return which checkpoints to retain; the newest is about to be written, and deletes none if it fails."""
        paths = [self.directory / _name(info.step) for info in checkpoints]
        if self._verified is None:
            return [True] * len(paths)
        wait([self._verified])
        newest, *older = sorted(paths, reverse=True)
        kept, best = self._newest_and_best(older)
        oldest = [newest, *kept][-1] if len(kept) == self.max_to_keep - 1 else min(paths)
        return [path >= oldest or path == best or self._is_periodic(path) for path in paths]

    def _is_periodic(self, path: Path) -> bool:
        return self.keep_period > 0 and int(path.name) % self.keep_period == 0

    def _is_intact(self, path: Path) -> bool:
        if path.name not in self.intact:
            self.intact[path.name] = verify_checkpoint(path) is None
        return self.intact[path.name]


class _Metadata(dict):
    """Metadata of a checkpoint. A missing key is an InputError."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"checkpoint {self.path} is damaged: {ABOUT} has no {key!r}; use another one")


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoint directories, oldest first, intact or not. In a bucket those without Orbax's mark are incomplete."""
    paths = [directory / name for name in storage.list_names(directory) if name.isdecimal()]
    if storage.is_remote(directory):
        paths = [path for path in paths if COMMITTED in storage.list_names(path)]
    return sorted(paths, key=lambda path: int(path.name))


def latest_checkpoint(directory: str | os.PathLike) -> Path | None:
    """Return the newest intact checkpoint of a directory; None if there is none, damaged or not. Damage is a warning.

    Raises:
        InputError: no checkpoint is intact, or the newest has another schema.
    """
    problems = []
    for path in reversed(list_checkpoints(storage.resolve_path(directory))):
        problem = verify_checkpoint(path)
        if problem is None:
            read_metadata(path)  # another schema is an error, not a reason to use an older checkpoint
            if problems:
                log.warning("using checkpoint %s, because a newer one is damaged: %s", path, "; ".join(problems))
            return path
        problems.append(problem)
    if problems:
        raise InputError(f"no checkpoint in {directory} is intact ({'; '.join(problems)}); restore a copy, or use a new workdir")
    return None


def set_newer_aside(checkpoint: Path) -> None:
    """Rename the damaged checkpoints after the newest intact one to names that are never read: their steps come again."""
    for path in list_checkpoints(checkpoint.parent):
        if int(path.name) > int(checkpoint.name):
            taken, name = storage.list_names(path.parent), f"damaged-{path.name}"
            names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
            path.rename(path.with_name(next(name for name in names if name not in taken)))


def verify_checkpoint(path: Path) -> str | None:
    """Return the damage of a checkpoint as a text; None if every file has its checksum."""
    return storage.find_damage(path, manifest=MANIFEST, skip=UNSIGNED)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint. If it cannot be read, has another schema or lacks a key, that is an InputError."""
    try:
        metadata = _Metadata(storage.read_object(path / ABOUT))
    except (ValueError, RecursionError) as error:
        raise InputError(f"checkpoint {path} is damaged: {ABOUT} is not metadata ({error}); use another one") from error
    if metadata.get("schema") != SCHEMA:
        version = f"checkpoint {path} has schema {metadata.get('schema')}, this version reads {SCHEMA}"
        raise InputError(f"{version}; use the version that wrote it")
    metadata.path = path
    return metadata


@_without_reports()  # of a file that runs of several processes lack, and that nothing reads
def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return fields of the state of a checkpoint as NumPy arrays, independent of the devices that wrote them."""
    checkpointer = ocp.PyTreeCheckpointer()
    tree = checkpointer.metadata(path / "state").item_metadata.tree
    fields = {name: tree[name] for name in names}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), fields)
    restore = ocp.args.PyTreeRestore(item=fields, restore_args=as_numpy, partial_restore=True)
    return checkpointer.restore(path / "state", args=restore)


def find_checkpoint(path: str | os.PathLike) -> Path:
    """Return the checkpoint of a path: itself, or the newest intact checkpoint of a workdir or of its checkpoints.

    WORKDIR/best is the best checkpoint by `run.best_metric` of the run.

    Raises:
        InputError: no checkpoint exists, or it is damaged.
    """
    path = storage.resolve_path(path)
    names = storage.list_names(path)
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
    """Return the intact checkpoint of a workdir with the best value of the metric of its run."""
    metric = read_metadata(find_checkpoint(workdir))["config"]["run"]["best_metric"]
    for path in _rank(list_checkpoints(workdir / "checkpoints"), functools.partial(_score, metric=metric)):
        if verify_checkpoint(path) is None:
            return path
    problem = f"no checkpoint in {workdir} has a value of run.best_metric, which is {metric!r}"
    raise InputError(f"{problem}; pass {workdir} for the newest")


def _rank(paths: Iterable[Path], score: Callable[[Path], float]) -> list[Path]:
    """Return the checkpoints that have a score: the best first, the newest of equals first."""
    scored = [(score(path), int(path.name), path) for path in paths]
    return [path for value, _, path in sorted(item for item in scored if math.isfinite(item[0]))][::-1]


def _score(path: Path, metric: str) -> float:
    """Return the value of a metric in the metadata of a checkpoint, negated if it is minimised; NaN if there is none."""
    if not metric:
        return math.nan
    try:
        value = (read_metadata(path).get("metrics") or {}).get(metric.removeprefix("-"))
    except (InputError, FileNotFoundError, NotADirectoryError):
        return math.nan
    if not isinstance(value, float | int):
        return math.nan
    return -value if metric.startswith("-") else value


def _remove_incomplete(directory: Path) -> None:
    """Delete the remains of interrupted saves; in a bucket Orbax would delete every folder that is not a checkpoint."""
    complete = {path.name for path in list_checkpoints(directory)}
    for name in storage.list_names(directory):
        if name.endswith(_PENDING) or (name.isdecimal() and name not in complete):
            epath.Path(directory / name).rmtree()


def _name(step: int) -> str:
    return f"{step:08d}"


def _write_json(path: Path, value: Any) -> None:
    storage.write_bytes(path, json.dumps(value, indent=1).encode(), sync=True)
