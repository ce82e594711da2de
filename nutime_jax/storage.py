"""Files of runs: atomic writes, reads of regular files, and paths of directories on disk and in Google Cloud Storage (gs://…).

A path in a bucket is an `etils.epath.Path`, which has the methods of `pathlib.Path`. Object storage has no rename, no append
and no locks, but it writes each object atomically.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from nutime_jax.errors import InputError

log = logging.getLogger(__name__)

MAX_CACHE_BYTES, MAX_JSON_BYTES = 1 << 34, 1 << 26


@contextlib.contextmanager
def open_atomically(path: Path, mode: str = "wb", *, sync: bool = False, **options: Any) -> Iterator[IO]:
    """Open a temporary file next to `path` that replaces it when the block ends, and is deleted when the block fails.

    Readers see the old file or the new one.

    Args:
        path: file to write; an older file is replaced.
        mode: "wb", or "w" for text.
        sync: whether to flush the content to disk before the replacement.
        options: options of `open`, such as `newline` and `encoding`.
    """
    pending = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with open(pending, mode, **options) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(pending, path)
    finally:
        pending.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file atomically, also in a bucket. An error is one of `access_errors`."""
    if is_remote(path):
        path.write_bytes(content)
        return
    with open_atomically(path, sync=sync) as file:
        file.write(content)


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a regular file; a pipe or a device would block, or never end.

    Raises:
        OSError: the file cannot be read, is not regular, or has more than `max_bytes`.
    """
    if is_remote(path):
        return path.read_bytes()
    check_regular(path, max_bytes=max_bytes)
    return path.read_bytes()


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object. Other JSON is a ValueError, or a RecursionError."""
    value = json.loads(read_regular(path, max_bytes=MAX_JSON_BYTES))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def write_checked(path: Path, content: bytes) -> None:
    """Write content and its SHA-256 to one local file, atomically; for caches, see `read_checked`."""
    write_bytes(path, hashlib.sha256(content).digest() + content)


def read_checked(path: Path) -> bytes | None:
    """Return the content of a file of `write_checked`; None if it is missing or damaged, and has to be computed again."""
    try:
        stored = read_regular(path, max_bytes=MAX_CACHE_BYTES)
    except OSError:
        return None
    digest, content = stored[:32], stored[32:]
    return content if hashlib.sha256(content).digest() == digest else None


def file_checksums(folder: Path, *, skip: Sequence[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory by relative name, without those that are skipped.

    A file that cannot be read, or is not regular, is an OSError.
    """
    from etils import epath

    def fail(error: OSError) -> None:
        raise error

    def checksum(name: str) -> str:
        if not is_remote(folder):
            check_regular(folder / name)
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    below = [f"{at}/{name}" for at, _, names in epath.Path(folder).walk(on_error=fail) for name in names]
    start = len(str(folder).removeprefix("gs://")) + 1  # `walk` omits gs://
    names = [name for path in below if (name := path[start:]) not in skip]
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(names, pool.map(checksum, names), strict=True))


def find_damage(folder: Path, *, manifest: str, skip: Sequence[str] = ()) -> str | None:
    """Return the first difference between the files of a directory and the checksums in its manifest; None if there is none."""
    # A network error is no damage: it must never select an older checkpoint.
    damage = (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError) if is_remote(folder) else (OSError, ValueError)
    try:
        expected, found = read_object(folder / manifest), file_checksums(folder, skip=skip)
    except (*damage, RecursionError) as error:
        return f"{folder.name} cannot be read ({error_summary(error)})"
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            state = "is missing" if name not in found else "is unexpected" if name not in expected else "has changed"
            return f"{folder.name}: {name} {state}"
    return None


def check_regular(path: Path, *, max_bytes: float = float("inf")) -> None:
    """Raise an OSError unless a local path leads to a regular file of at most `max_bytes`."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"{path.name} has {status.st_size} bytes, more than {max_bytes}")


def resolve_path(path: str | os.PathLike) -> Path:
    """Return the absolute path of a local directory (~ is expanded) or of a bucket directory (gs://BUCKET/FOLDER).

    Raises:
        InputError: another kind of address, or gs:// without gcsfs.
    """
    text = os.fspath(path)
    if match := re.fullmatch(r"gs:/+([^/]+(/.*)?)", text):  # pathlib joins two slashes
        if importlib.util.find_spec("gcsfs") is None:
            raise InputError(f"{text} is in a bucket; pip install 'nutime_jax[gcs]' to reach it, or mount it and pass the path")
        # The newer class asks another service for the type of the bucket in every call, which needs further permissions.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        import fsspec.config
        from etils import epath

        # Writes of other processes, and of other clients of this one, are visible immediately.
        fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
        return epath.Path(f"gs://{match[1]}")
    if re.match(r"\w+://", text):
        raise InputError(f"{text} is neither a local directory nor gs://BUCKET/FOLDER; mount it and pass the path")
    return Path(text).expanduser().absolute()


def is_remote(path: str | os.PathLike) -> bool:
    """Return whether a path is in a bucket."""
    return os.fspath(path).startswith("gs://")


def access_errors(path: str | os.PathLike) -> tuple[type[Exception], ...]:
    """Return the errors of reads and writes that fail. The clients of a bucket have no common one."""
    return (Exception,) if is_remote(path) else (OSError, ValueError, RuntimeError)


def error_summary(error: BaseException) -> str:
    """Return the message of an error in one line of at most 300 characters."""
    return ((getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__).splitlines()[0][:300]


def list_names(folder: Path) -> set[str]:
    """Return the names in a directory; empty if it does not exist, or is a file.

    It raises on network errors: a failed request does not prove that an object is missing.
    """
    try:
        return {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Create a directory and lock it against other runs while the context lasts.

    A bucket has no locks: there `.owner` names the latest run, and two runs in one directory are not detected.

    Raises:
        InputError: the directory cannot be written, or another run has locked it.
    """
    try:
        if is_remote(folder):
            write_bytes(folder / ".owner", f"{socket.gethostname()} {os.getpid()}\n".encode())
            file = contextlib.nullcontext()
        else:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / ".lock").open("w")
    except access_errors(folder) as error:
        advice = "fix the permissions, or choose another --workdir"
        raise InputError(f"workdir {folder} cannot be written ({error_summary(error)}); {advice}") from error
    with file as descriptor:
        if descriptor:
            _lock_file(descriptor, folder)
        yield


def _lock_file(file: IO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"workdir {folder} is in use by another run; wait for it, or choose another --workdir") from error
    except OSError as error:  # a file system without locks
        log.warning("workdir %s cannot be locked (%s); start no other run in it", folder, error_summary(error))
