"""Sealed folders: a description and arrays, without pickle.

config.json          what the folder is (kind, schema), a description, the digest of every other file, and one of its own
weights.safetensors  the arrays
card.md              a text for readers, if there is one
program.jax          a compiled-once program that needs none of this library (`export`), if there is one

A folder is written beside its place and moved there whole. Whatever is not as it was written is refused before it is used.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.errors import InputError

CONFIG, WEIGHTS, CARD, PROGRAM = "config.json", "weights.safetensors", "card.md", "program.jax"
LARGEST = {CONFIG: 1 << 24, WEIGHTS: 1 << 32, CARD: 1 << 20, PROGRAM: 1 << 32}
"""Bytes of the largest file that is read: hundreds of times what is written."""
FIRST_KIND = "classifier"
"""What a folder is that does not say it: they were the first."""


class Contents(NamedTuple):
    """What a folder holds: the description that it was written with, arrays by name, and the text for readers."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    card: str


def write_folder(
    folder: str | os.PathLike,
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    kind: str,
    schema: int,
    card: str = "",
    program: bytes = b"",
) -> Path:
    """Writes a folder; an older one of the same kind is replaced.

    Args:
        about: description, of what JSON knows; "kind", "schema", "weights", "card", "program" and "digest" are taken.
        arrays: by name.
        kind: what the folder is, in a word: "classifier", "encoder".
        schema: version of `about` and of the names of the arrays.
        card: text for readers; none is written where it is empty.
        program: a serialised program; none is written where it is empty.

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    from safetensors.numpy import save

    folder = check_target(folder, kind=kind)
    files = {WEIGHTS: save({name: np.ascontiguousarray(leaf) for name, leaf in arrays.items()})}
    if card:
        files[CARD] = card.encode()
    if program:
        files[PROGRAM] = program
    digests = {Path(name).stem: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[CONFIG] = json.dumps(_sealed({"kind": kind, "schema": schema, **about, **digests}), indent=1).encode()
    try:
        _replace_folder(folder, files)
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); choose another folder") from error
    return folder


def read_folder(folder: str | os.PathLike, *, kind: str, schema: int, writer: str) -> Contents:
    """Reads what `write_folder` wrote.

    Args:
        writer: what writes such folders, for errors: "`nutime finetune`".

    Raises:
        InputError: the folder holds nothing of this kind, or something of another schema, or is damaged.
    """
    folder = Path(folder).expanduser()
    remedy = f"give a folder that {writer} wrote"
    try:
        about = json.loads(_read(folder, CONFIG))
    except OSError as error:
        raise InputError(f"{folder} holds no {kind} ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder} is damaged: {CONFIG} is not what was written; use another copy") from error
    if not isinstance(about, dict) or not {"digest", "schema", "weights"} <= about.keys():
        raise InputError(f"{folder} holds no {kind} (its {CONFIG} is of something else); {remedy}")
    if about["digest"] != _sealed(about)["digest"]:
        raise InputError(f"{folder} is damaged: {CONFIG} is not what was written; use another copy")
    if (found := about.get("kind", FIRST_KIND)) != kind:
        raise InputError(f"{folder} holds no {kind} (it is of kind {found!r}); {remedy}")
    if about["schema"] != schema:
        raise InputError(f"{folder} has schema {about['schema']}, this version reads {schema}; use the version that wrote it")
    arrays = _arrays(folder, read_file(folder, WEIGHTS, about))
    card = read_file(folder, CARD, about) if Path(CARD).stem in about else b""
    return Contents(about, arrays, card.decode(errors="replace"))


def read_file(folder: str | os.PathLike, name: str, about: Mapping[str, Any]) -> bytes:
    """The bytes of a file, which `about` holds the digest of.

    Raises:
        InputError: it cannot be read, or is not what was written.
    """
    try:
        content = _read(Path(folder).expanduser(), name)
    except OSError as error:
        raise InputError(f"{folder} is damaged: {name} cannot be read ({error.strerror}); use another copy") from error
    if about[Path(name).stem] != hashlib.sha256(content).hexdigest():
        raise InputError(f"{folder} is damaged: {name} is not what was written; use another copy")
    return content


def is_sealed(folder: str | os.PathLike) -> bool:
    """Whether a folder looks like one of these, intact or not."""
    return (Path(folder).expanduser() / CONFIG).is_file()


def check_target(folder: str | os.PathLike, *, kind: str) -> Path:
    """The folder that something of a kind may be written to: a new or empty one, or one that holds another of the kind.

    Raises:
        InputError: it is something else, which must not be lost; or it cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    try:
        if (folder.exists() or folder.is_symlink()) and not _may_be_replaced(folder, kind):
            raise InputError(f"{folder} exists and is no {kind}'s; choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); choose another folder") from error
    if not os.access(folder.parent, os.W_OK):
        raise InputError(f"cannot write {folder} (permission denied); choose another folder")
    return folder


def _may_be_replaced(folder: Path, kind: str) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {one.name for one in folder.iterdir()}
    if not names:
        return True
    try:
        about = json.loads(_read(folder, CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    return names <= LARGEST.keys() and isinstance(about, dict) and "digest" in about and about.get("kind", FIRST_KIND) == kind


def _read(folder: Path, name: str) -> bytes:
    """The bytes of a file; what is no file, or larger than anything that is written, is not read."""
    path = folder / name
    if path.exists() and not path.is_file():  # a pipe would never end
        raise OSError(0, f"{name} is no file")
    if path.stat().st_size > LARGEST[name]:
        raise OSError(0, f"{name} has {path.stat().st_size} bytes, more than anything that is written")
    return path.read_bytes()


def _arrays(folder: Path, weights: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(weights)  # checks what the header says of sizes and places
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(f"{folder} is damaged: {WEIGHTS} cannot be read ({error}); use another copy") from error


def _sealed(about: Mapping[str, Any]) -> dict[str, Any]:
    """With a digest of everything else in it."""
    rest = {name: value for name, value in about.items() if name != "digest"}
    return {**rest, "digest": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """A kill leaves the old folder, the new one, or (between two renames) neither, with both whole beside its place."""
    pending = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    new, old = pending / "new", pending / "old"
    try:
        new.mkdir()
        for name, content in files.items():
            with open(new / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(pending)
