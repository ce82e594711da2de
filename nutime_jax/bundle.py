"""Bundles: directories with a description and arrays, protected by checksums. No pickle.

config.json          kind, schema, description, the SHA-256 of every other file, and a digest of all of this
weights.safetensors  arrays
card.md              model card (optional)
program.jax          exported program that needs no code of this library (optional, see `export`)

A bundle is written next to its destination and renamed. Every checksum is verified before a file is used.
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
from nutime_jax.storage import read_regular

CONFIG, WEIGHTS, CARD, PROGRAM = "config.json", "weights.safetensors", "card.md", "program.jax"
MAX_FILE_BYTES = {CONFIG: 1 << 24, WEIGHTS: 1 << 32, CARD: 1 << 20, PROGRAM: 1 << 32}
"""Maximum size of each file that is read, in bytes: hundreds of times the usual size."""


class Bundle(NamedTuple):
    """Content of a bundle.

    about: description, with kind, schema and checksums.
    arrays: name -> array.
    card: model card in Markdown; may be empty.
    """

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    card: str


def save_bundle(
    folder: str | os.PathLike,
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    kind: str,
    schema: int,
    card: str = "",
    program: bytes = b"",
) -> Path:
    """Write a bundle; an older bundle of the same kind is replaced.

    Args:
        folder: directory of the bundle.
        about: description, JSON values. Reserved: "kind", "schema", "weights", "card", "program", "digest".
        arrays: name -> array.
        kind: "encoder" or "classifier".
        schema: version of `about` and of the names of the arrays.
        card: model card; empty writes no file.
        program: serialised program; empty writes no file.

    Returns:
        The absolute path of the bundle.

    Raises:
        InputError: an array has values that are not finite, or the directory cannot be written, or contains something else.
    """
    from safetensors.numpy import save

    _check_finite(folder, arrays)
    folder = check_output_dir(folder, kind=kind)
    files = {WEIGHTS: save({name: np.ascontiguousarray(array) for name, array in arrays.items()})}
    if card:
        files[CARD] = card.encode()
    if program:
        files[PROGRAM] = program
    checksums = {Path(name).stem: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[CONFIG] = json.dumps(_with_digest({"kind": kind, "schema": schema, **about, **checksums}), indent=1).encode()
    try:
        _replace_dir(folder, files)
    except OSError as error:
        raise InputError(f"Cannot write {folder} ({error.strerror}); choose another directory") from error
    return folder


def load_bundle(folder: str | os.PathLike, *, kind: str, schema: int, writer: str) -> Bundle:
    """Read a bundle and verify its checksums.

    Args:
        folder: directory of the bundle.
        kind, schema: expected kind and schema.
        writer: command or function that writes such bundles, for messages: "`nutime fit`".

    Raises:
        InputError: the directory is not a bundle of this kind and schema, or it is corrupt.
    """
    folder = Path(folder).expanduser()
    corrupt = f"{folder} is corrupt: the checksum of {CONFIG} does not match; use another copy"

    def mismatch(reason: str | None) -> InputError:
        return InputError(f"{folder} is not a bundle of kind {kind!r} ({reason}); pass a directory that {writer} wrote")

    try:
        about = json.loads(_read(folder, CONFIG))
    except OSError as error:
        raise mismatch(error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise InputError(corrupt) from error
    if not isinstance(about, dict) or not {"digest", "schema", "weights"} <= about.keys():
        raise mismatch(f"its {CONFIG} has another format")
    if about["digest"] != _with_digest(about)["digest"]:
        raise InputError(corrupt)
    if (actual := about.get("kind")) != kind:
        raise mismatch(f"its kind is {actual!r}")
    if about["schema"] != schema:
        raise InputError(f"{folder} has schema {about['schema']}, this version reads {schema}; use the version that wrote it")
    arrays = _parse_arrays(folder, read_file(folder, WEIGHTS, about))
    _check_finite(folder, arrays)
    card = read_file(folder, CARD, about) if Path(CARD).stem in about else b""
    return Bundle(about, arrays, card.decode(errors="replace"))


def read_file(folder: str | os.PathLike, name: str, about: Mapping[str, Any]) -> bytes:
    """Return the content of a file of a bundle, verified with the checksum in `about`.

    Raises:
        InputError: the file cannot be read, or its checksum does not match.
    """
    try:
        content = _read(Path(folder).expanduser(), name)
    except OSError as error:
        raise InputError(f"{folder} is corrupt: {name} cannot be read ({error.strerror}); use another copy") from error
    if about[Path(name).stem] != hashlib.sha256(content).hexdigest():
        raise InputError(f"{folder} is corrupt: the checksum of {name} does not match; use another copy")
    return content


def is_bundle(folder: str | os.PathLike) -> bool:
    """Return whether a directory looks like a bundle, intact or not."""
    return (Path(folder).expanduser() / CONFIG).is_file()


def check_output_dir(folder: str | os.PathLike, *, kind: str) -> Path:
    """Return the absolute path of a directory to which a bundle may be written.

    Accepted are a new or empty directory, and a bundle of the same kind.

    Raises:
        InputError: the directory contains something else, or cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    try:
        if (folder.exists() or folder.is_symlink()) and not _may_be_replaced(folder, kind):
            raise InputError(f"{folder} exists and is not a bundle of kind {kind!r}; choose another directory")
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write {folder} ({error.strerror}); choose another directory") from error
    if not os.access(folder.parent, os.W_OK):
        raise InputError(f"Cannot write {folder} (permission denied); choose another directory")
    return folder


def _may_be_replaced(folder: Path, kind: str) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    try:
        about = json.loads(_read(folder, CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    known = names <= MAX_FILE_BYTES.keys() and isinstance(about, dict) and "digest" in about
    return known and about.get("kind") == kind


def _read(folder: Path, name: str) -> bytes:
    """Return the content of a regular file of accepted size."""
    return read_regular(folder / name, max_bytes=MAX_FILE_BYTES[name])


def _check_finite(folder: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{folder}: array {name!r} has values that are not finite; use weights of a run that has not diverged")


def _parse_arrays(folder: Path, weights: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(weights)  # verifies the sizes and offsets of the header
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(f"{folder} is corrupt: {WEIGHTS} cannot be read ({error}); use another copy") from error


def _with_digest(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description with the digest of all its other fields."""
    rest = {name: value for name, value in about.items() if name != "digest"}
    return {**rest, "digest": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def _replace_dir(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a new directory and rename it.

    A kill leaves the old directory or the new one; between two renames, both stay in full under temporary names.
    """
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
