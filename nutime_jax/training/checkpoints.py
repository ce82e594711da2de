"""Checkpoints of a run: written by Orbax, verified by checksums, and never replaced by a worse one.

A checkpoint is a directory named by its step:

    state/         arrays, written by Orbax; each process writes its shards
    about.json     metadata: schema version, step, time, configuration, corpus digest, commit, package versions
    manifest.json  SHA-256 of every other file but Orbax's own marks of a complete checkpoint

Orbax writes it under another name, and renames it when it is complete; in a bucket the manifest is written after all other
files. Orbax restores wrong values silently after a flipped byte: the manifest tells whether a checkpoint is intact.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nutime_jax.errors import InputError, extra
from nutime_jax.storage import access_errors, check_regular, error_summary, is_remote, list_names, read_regular, resolve_path, write_bytes

with extra("train"):
    import orbax.checkpoint as ocp
    from etils import epath

log = logging.getLogger(__name__)

SCHEMA = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
COMMITTED = ocp.path.atomicity_types.COMMIT_SUCCESS_FILE
UNSIGNED = (MANIFEST, "_CHECKPOINT_METADATA", COMMITTED)
"""Files that are not in the manifest: Orbax writes the last two after it, and nothing reads them."""
MAX_JSON_BYTES = 1 << 26
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
        self.directory = resolve_path(directory)
        self._retention = _Retention(self.directory, max_to_keep, keep_period, best_metric, is_primary)
        self._about: dict[str, Any] = {}
        self._saving: int | None = None
        logging.getLogger("absl").addFilter(_drop_record)
        sys.excepthook = _report_unless_loop_is_closed
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
        except access_errors(self.directory) as error:
            advice = "fix the permissions, or choose another --workdir"
            raise InputError(f"{self.directory} cannot be written ({error_summary(error)}); {advice}") from error

    def save(self, state: Any, *, step: int, metadata: dict[str, Any]) -> None:
        """Copy the state, then write it asynchronously. The caller may donate the state immediately.

        Older checkpoints are deleted only after the new one is complete. Errors of the write are raised by the next call,
        or by `close`.

        Raises:
            InputError: this or the last checkpoint could not be written.
            JaxRuntimeError: another process has ended.
        """
        self.wait()
        self._about = {"schema": SCHEMA, "step": step, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **metadata}
        self._retention.add(step, metadata)
        self._saving = step
        with self._as_input_error(step):
            self._orbax.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), force=True)

    def wait(self) -> None:
        """Return when the last checkpoint is complete.

        Raises:
            InputError: it could not be written.
        """
        step, self._saving = self._saving, None
        if step is not None:
            with self._as_input_error(step):
                self._orbax.wait_until_finished()
            self._retention.intact.add(step)

    def close(self) -> None:
        """Wait for the last checkpoint, then stop the background threads."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(*access_errors(self.directory)):  # raised by `wait`
                self._orbax.close()
        # Not after an error: threads of Orbax report it late.
        sys.excepthook = sys.__excepthook__
        logging.getLogger("absl").removeFilter(_drop_record)

    def restore(self, path: Path, target: Any) -> Any:
        """Return the state of a verified checkpoint with the shapes and shardings of `target` (abstract or concrete)."""

        def abstract(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

        with contextlib.closing(ocp.StandardCheckpointer()) as checkpointer:
            state = checkpointer.restore(path / "state", jax.tree.map(abstract, target))
        self._retention.intact.add(int(path.name))
        return state

    def _seal(self) -> None:
        """Add metadata and manifest to the arrays. Process 0 calls it when all processes have written theirs."""
        name = f"{self._about['step']:08d}"
        pending = self.directory / (name if is_remote(self.directory) else name + _PENDING)
        if is_remote(pending):
            write_bytes(pending / COMMITTED, b"")  # Orbax does not delete a checkpoint without it
        _write_json(pending / ABOUT, self._about)
        _write_json(pending / MANIFEST, _checksums(pending))

    @contextlib.contextmanager
    def _as_input_error(self, step: int) -> Iterator[None]:
        try:
            yield
        except jax.errors.JaxRuntimeError:  # of a collective: another process has ended, see `initialize_distributed`
            self._saving = None
            raise
        except access_errors(self.directory) as error:
            self._saving = None
            self._orbax.reload()
            raise InputError(
                f"Cannot write checkpoint {step} to {self.directory} ({error_summary(error)}). The previous checkpoint is "
                "intact. Free disk space or fix permissions, then rerun the same command."
            ) from error


def _drop_record(record: logging.LogRecord) -> bool:
    """Drop a log record of Orbax, which raises the errors that it logs."""
    return False


def _report_unless_loop_is_closed(kind: type, error: BaseException, trace: Any) -> None:
    """Report an exception that nobody handles. After a failed save each write that was pending raises one without content."""
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


class _OrbaxManager(ocp.CheckpointManager):
    """Orbax's manager without its own questions for a preemption: with the step of a past save, in a thread, they would move
    the counter by which JAX agrees on the step that all processes stop after."""

    def reached_preemption(self, step: int) -> bool:
        return False


class _Retention(ocp.checkpoint_managers.PreservationPolicy):
    """Retain the newest intact checkpoints, all newer ones, the periodic ones and the best.

    A checkpoint is verified once: those that this process wrote or restored are known, so that a save costs the same with
    any number of checkpoints.
    """

    def __init__(self, directory: Path, max_to_keep: int, keep_period: int, best_metric: str, is_primary: bool):
        self._directory, self._max_to_keep, self._keep_period = directory, max_to_keep, keep_period
        self._best_metric, self._is_primary = best_metric, is_primary
        self.intact: set[int] = set()
        self._scores: dict[int, float] = {}

    def add(self, step: int, metadata: dict[str, Any]) -> None:
        """Note the metadata of a checkpoint that is to be written."""
        self._scores[step] = _score(metadata, self._best_metric)

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> list[bool]:
        """Return which checkpoints to retain; the newest is about to be written, and deletes none if it fails."""
        if not self._is_primary:
            return [True] * len(checkpoints)
        steps = sorted(info.step for info in checkpoints)
        newest = steps[-1]
        kept = [newest]
        for step in reversed(steps[:-1]):
            if len(kept) == self._max_to_keep:
                break
            if self._is_intact(step):
                kept.append(step)
        oldest = kept[-1] if len(kept) == self._max_to_keep else 0
        best = next((step for step in self._best_first(steps) if step == newest or self._is_intact(step)), None)
        return [info.step >= oldest or info.step == best or self._is_periodic(info.step) for info in checkpoints]

    def _is_periodic(self, step: int) -> bool:
        return bool(self._keep_period) and step % self._keep_period == 0

    def _is_intact(self, step: int) -> bool:
        if step not in self.intact and verify_checkpoint(self._path(step)) is None:
            self.intact.add(step)
        return step in self.intact

    def _best_first(self, steps: list[int]) -> list[int]:
        if not self._best_metric:
            return []
        for step in steps:
            if step not in self._scores:
                self._scores[step] = _score_of(self._path(step), self._best_metric)
        return sorted((step for step in steps if math.isfinite(self._scores[step])), key=lambda step: (-self._scores[step], -step))

    def _path(self, step: int) -> Path:
        return self._directory / f"{step:08d}"


class _Metadata(dict):
    """Metadata of a checkpoint. A missing key is an InputError."""

    def __init__(self, path: Path, fields: dict[str, Any]):
        super().__init__(fields)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"checkpoint {self._path} is damaged: {ABOUT} has no {key!r}; use another one")


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoint directories, oldest first, intact or not. In a bucket those without manifest are incomplete."""
    paths = [directory / name for name in list_names(directory) if name.isdecimal()]
    if is_remote(directory):
        paths = [path for path in paths if MANIFEST in list_names(path)]
    return sorted(paths, key=lambda path: int(path.name))


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


def set_newer_aside(checkpoint: Path) -> None:
    """Rename the damaged checkpoints after the newest intact one to names that are never read: their steps come again."""
    for path in list_checkpoints(checkpoint.parent):
        if int(path.name) > int(checkpoint.name):
            taken = list_names(path.parent)
            names = (f"damaged-{path.name}{suffix}" for suffix in ["", *(f"-{i}" for i in range(2, len(taken) + 3))])
            path.rename(path.with_name(next(name for name in names if name not in taken)))


def best_checkpoint(directory: Path, metric: str) -> Path | None:
    """Return the intact checkpoint with the best value of a metric, the newest of equals; None if none has a value.

    Args:
        metric: its name; "-" before the name minimises, "" is none.
    """
    scored = [(_score_of(path, metric), int(path.name), path) for path in list_checkpoints(directory)]
    best_first = sorted((item for item in scored if math.isfinite(item[0])), reverse=True)
    return next((path for _, _, path in best_first if verify_checkpoint(path) is None), None)


def verify_checkpoint(path: Path) -> str | None:
    """Return the damage of a checkpoint as a text; None if every file has its checksum."""
    # A network error is no damage: it must never select an older checkpoint.
    damage = (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError) if is_remote(path) else (OSError, ValueError)
    try:
        manifest, checksums = _read_object(path / MANIFEST), _checksums(path)
    except (*damage, RecursionError) as error:
        return f"{path.name} cannot be read ({error_summary(error)})"
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
        metadata = _read_object(path / ABOUT)
    except (ValueError, RecursionError) as error:
        raise InputError(f"checkpoint {path} is damaged: {ABOUT} is not metadata ({error}); use another one") from error
    if metadata.get("schema") != SCHEMA:
        version = f"checkpoint {path} has schema {metadata.get('schema')}, this version reads {SCHEMA}"
        raise InputError(f"{version}; use the version that wrote it")
    return _Metadata(path, metadata)


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
    path = resolve_path(path)
    names = list_names(path)
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


def _score_of(path: Path, metric: str) -> float:
    """Return the score of a checkpoint, see `_score`; NaN if its metadata cannot be read."""
    try:
        return _score(read_metadata(path), metric)
    except (InputError, FileNotFoundError, NotADirectoryError):
        return math.nan


def _score(metadata: dict[str, Any], metric: str) -> float:
    """Return the value of a metric, negated if it is minimised; NaN if there is none."""
    value = (metadata.get("metrics") or {}).get(metric.removeprefix("-"))
    if not isinstance(value, float | int):
        return math.nan
    return -value if metric.startswith("-") else value


def _remove_incomplete(directory: Path) -> None:
    """Delete the remains of interrupted saves."""
    for path in [directory / name for name in list_names(directory)]:
        if path.name.endswith(_PENDING) or (is_remote(path) and path.name.isdecimal() and MANIFEST not in list_names(path)):
            epath.Path(path).rmtree()


def _checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory that the manifest holds, by relative name."""

    def fail(error: OSError) -> None:
        raise error

    below = [f"{at}/{name}" for at, _, names in epath.Path(folder).walk(on_error=fail) for name in names]
    start = len(str(folder).removeprefix("gs://")) + 1  # `walk` omits gs://
    names = [name for path in below if (name := path[start:]) not in UNSIGNED]
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(names, pool.map(lambda name: _checksum(folder / name), names), strict=True))


def _checksum(path: Path) -> str:
    if not is_remote(path):
        check_regular(Path(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(read_regular(path, max_bytes=MAX_JSON_BYTES))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def _write_json(path: Path, value: Any) -> None:
    write_bytes(path, json.dumps(value, indent=1).encode(), sync=True)
