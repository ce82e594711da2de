"""Checkpoints by Orbax that are complete, verified, and never replaced by a worse one.

A checkpoint is a folder named by its step:

    state/         the arrays, as Orbax writes them
    about.json     schema version, step, time, configuration, corpus digest, commit, package versions
    manifest.json  SHA-256 of every other file

It is written beside its place and renamed into it when it is complete, so what bears a number was complete once; the
manifest tells whether it still is (Orbax restores wrong values after a flipped byte, without a word).
"""

import hashlib
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nutime_jax.errors import InputError

log = logging.getLogger(__name__)

SCHEMA = 1
_PENDING, _DELETED, _DAMAGED = ".pending-", ".deleted-", "damaged-"


class CheckpointStore:
    """The checkpoints of one run, in one folder.

    keep: how many of the newest to keep.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int = 2):
        self.directory = Path(directory).absolute()
        self.keep = keep

    def save(self, state: Any, *, step: int, about: dict[str, Any]) -> Path:
        """Writes a checkpoint; it counts only once it is whole. Older ones beyond `keep` go after that, never before."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        pending = self.directory / f"{_PENDING}{step}"
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(pending / "state", state)
        _write_json(pending / "about.json", {"schema": SCHEMA, "step": step, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **about})
        _write_json(pending / "manifest.json", _hashes(pending))
        final = self.directory / f"{step:08d}"
        if final.exists():  # only a damaged one can be in the way: a good one would have been resumed from
            shutil.rmtree(self.directory / f"{_DAMAGED}{final.name}", ignore_errors=True)
            final.rename(self.directory / f"{_DAMAGED}{final.name}")
        pending.rename(final)
        _sync(self.directory)
        older = [path for path in steps(self.directory) if int(path.name) < step and find_damage(path) is None]
        for old in older[: max(0, len(older) - self.keep + 1)]:
            old.rename(self.directory / f"{_DELETED}{old.name}")
        self._sweep()
        return final

    def restore(self, path: Path, like: Any) -> Any:
        """The state in a checkpoint, with the shapes and shardings of `like` (abstract or concrete)."""
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path / "state", like)

    def _sweep(self) -> None:
        """Removes what an interrupted save or deletion has left; nothing here ever bore a number of its own."""
        for prefix in (_PENDING, _DELETED):
            for path in self.directory.glob(f"{prefix}*"):
                shutil.rmtree(path)


def steps(directory: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted((path for path in directory.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


def latest(directory: str | os.PathLike) -> Path | None:
    """The newest intact checkpoint below `directory`; None if there never was one.

    Raises:
        InputError: there are checkpoints, and none is intact, or the newest has another schema.
    """
    problems = []
    for path in reversed(steps(Path(directory))):
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


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None when every file is what was written."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        found = _hashes(path)
    except (OSError, ValueError) as error:
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
    about = json.loads((path / "about.json").read_text())
    if about.get("schema") != SCHEMA:
        raise InputError(f"checkpoint {path} has schema {about.get('schema')}, this version reads {SCHEMA}; use the version that wrote it")
    return about


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of the state in a checkpoint, as NumPy arrays, whatever devices wrote them."""
    checkpointer = ocp.PyTreeCheckpointer()
    tree = checkpointer.metadata(path / "state").item_metadata.tree
    wanted = {name: tree[name] for name in names}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    restore = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
    return checkpointer.restore(path / "state", args=restore)


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint that a path means: itself, or the newest intact one of a workdir or of a folder of checkpoints.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(path).expanduser().absolute()
    if (path / "state").is_dir():
        if problem := find_damage(path):
            raise InputError(f"checkpoint {problem}; use another one")
        return path
    found = latest(path / "checkpoints") or latest(path)
    if found is None:
        raise InputError(f"{path} holds no checkpoint; give a workdir of `nutime pretrain` or one folder of its checkpoints")
    return found


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "manifest.json")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_json(path: Path, value: Any) -> None:
    with open(path, "w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
