"""Storage back ends for run directories: local disk and Google Cloud Storage (`gs://…`).

All other modules are independent of the back end. Object storage has no rename, no append and no locks, but it writes
each object atomically. A failed request does not prove that an object is missing. Existence is therefore decided from
listings, which raise on network errors, and never from a failed `exists` call.
"""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import itertools
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from nutime_jax.errors import InputError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""File with the checksums of all other files of a step directory; it is written last."""
_PENDING, _DELETED, _DAMAGED = ".pending-", ".deleted-", "damaged-"


@contextlib.contextmanager
def open_atomically(path: Path, mode: str = "wb", *, sync: bool = False, **options: Any) -> Iterator[IO]:
    """Open a temporary file next to `path` that replaces it when the block ends, and is deleted when the block fails.

    Readers see the old file or the new one.

    Args:
        path: file to write; an older file is replaced.
        mode: "wb", or "w" for text.
        sync: whether to flush the content to disk before the replacement.
        options: options of `open`, such as `newline` and `encoding`.

    Raises:
        OSError: the file cannot be written.
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


def resolve_path(path: str | os.PathLike) -> Path:
    """Return the absolute path of a local directory (~ is expanded) or of a bucket directory (gs://BUCKET/FOLDER).

    Raises:
        InputError: another kind of address, or gs:// without gcsfs.
    """
    text = os.fspath(path)
    if match := re.fullmatch(r"gs:/+([^/]+(/.*)?)", text):  # pathlib joins two slashes
        if importlib.util.find_spec("gcsfs") is None:
            raise InputError(f"{text} is in a bucket; pip install 'nutime_jax[gcs]' to reach it, or mount it and pass the path")
        from etils import epath

        return epath.Path(f"gs://{match[1]}")
    if re.match(r"\w+://", text):
        raise InputError(f"{text} is neither a local directory nor gs://BUCKET/FOLDER; mount it and pass the path")
    return Path(text).expanduser().absolute()


def storage_for(path: str | os.PathLike) -> "LocalStorage | GCSStorage":
    """Return the storage back end of a path."""
    return GCS if str(path).startswith("gs://") else LOCAL


def error_summary(error: BaseException) -> str:
    """Return the message of an error in one line of at most 300 characters."""
    return ((getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__).splitlines()[0][:300]


class LocalStorage:
    """Local or mounted directories. A step directory is written under another name, then renamed."""

    remote = False
    write_errors = (OSError, ValueError, RuntimeError)
    """Errors of writes that fail."""
    corruption_errors = (OSError, ValueError)
    """Errors of reads of damaged files in a step directory."""

    @contextlib.contextmanager
    def lock(self, folder: Path) -> Iterator[None]:
        """Create a directory and lock it against other runs while the context lasts.

        Raises:
            InputError: the directory cannot be written, or another run has locked it.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("w")
        except OSError as error:
            raise InputError(f"workdir {folder} cannot be written ({error.strerror}); choose another --workdir") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"workdir {folder} is in use by another run; wait for it, or choose another --workdir") from error
            yield

    def list_names(self, folder: Path) -> set[str]:
        """Return the names in a directory; empty if it does not exist."""
        return {path.name for path in folder.glob("*")}

    def checksums(self, folder: Path) -> dict[str, str]:
        """Return the SHA-256 of every file below a directory, except the manifest, by relative name."""
        names = [name for name in _files_below(folder) if name != MANIFEST]
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

    def read(self, path: Path) -> bytes:
        """Return the content of a file."""
        return path.read_bytes()

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file and flush it to disk."""
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, path: Path, content: bytes) -> None:
        """Write a file atomically."""
        with open_atomically(path) as file:
            file.write(content)

    def staging_dir(self, folder: Path) -> Path:
        """Return a local directory for files that grow and belong into `folder`; `folder` itself if it is local."""
        return folder

    def upload(self, near: Path, folder: Path) -> None:
        """Copy the files of a staging directory to `folder`; nothing if it is local."""

    @contextlib.contextmanager
    def local_copy(self, folder: Path) -> Iterator[Path]:
        """Provide a local directory with the files of `folder` while the context lasts."""
        yield folder

    def list_steps(self, directory: Path) -> list[Path]:
        """Return the step directories that were complete once, in ascending order."""
        return sorted((path for path in directory.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))

    def pending_path(self, directory: Path, name: str) -> Path:
        """Return the path of a step directory until it is complete."""
        return directory / f"{_PENDING}{name}"

    def prepare_save(self, directory: Path, name: str) -> None:
        """Create the directory and remove the remains of interrupted saves."""
        directory.mkdir(parents=True, exist_ok=True)
        self.remove_incomplete(directory)

    def commit(self, pending: Path, final: Path) -> None:
        """Rename a complete step directory, manifest included, to its final name."""
        if final.exists():  # it is damaged: an intact one would have been resumed from
            _set_aside(final)
        pending.rename(final)
        descriptor = os.open(final.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def delete(self, path: Path) -> None:
        """Rename a step directory; `remove_incomplete` deletes it."""
        path.rename(path.with_name(f"{_DELETED}{path.name}"))

    def remove_incomplete(self, directory: Path) -> None:
        """Delete the remains of interrupted saves and of `delete`."""
        for prefix in (_PENDING, _DELETED):
            for path in directory.glob(f"{prefix}*"):
                shutil.rmtree(path)


def _set_aside(path: Path) -> None:
    """Rename a damaged step directory to an unused name that is never read."""
    suffixes = itertools.chain([""], map("-{}".format, itertools.count(2)))
    names = (path.with_name(f"{_DAMAGED}{path.name}{suffix}") for suffix in suffixes)
    path.rename(next(name for name in names if not name.exists()))


class GCSStorage:
    """Directories of Google Cloud Storage. A step directory is written locally, then copied; it is complete with its manifest.

    There are no locks: two runs in one directory are not detected; `.owner` names the latest. A damaged step directory is
    not set aside before its step is written again, since that would copy every object.
    """

    remote = True
    corruption_errors = (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError)
    """Excludes network errors, so that these never select an older checkpoint."""

    @functools.cached_property
    def write_errors(self) -> tuple[type[Exception], ...]:
        """Errors of writes that fail."""
        from aiohttp import ClientError
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError

        return (OSError, ValueError, RuntimeError, ClientError, HttpError, GoogleAuthError)

    @functools.cached_property
    def _files(self):
        # The newer class asks another service for the type of the bucket in every call, which needs further permissions.
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem(use_listings_cache=False)  # writes of other processes are visible immediately

    @functools.cached_property
    def _scratch(self) -> Path:
        scratch = Path(tempfile.mkdtemp(prefix="nutime-"))
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        return scratch

    @functools.cached_property
    def _hashes(self) -> dict[tuple[str, str], str]:
        """Checksums by object and version; a version never changes, so each is read once."""
        return {}

    @contextlib.contextmanager
    def lock(self, folder: Path) -> Iterator[None]:
        """Write `.owner`; other runs are not excluded.

        Raises:
            InputError: the directory cannot be written.
        """
        try:
            self.write(folder / ".owner", f"{socket.gethostname()} {os.getpid()}\n".encode())
        except self.write_errors as error:
            reason = error_summary(error)
            raise InputError(f"workdir {folder} cannot be written ({reason}); fix the permissions, or choose another --workdir") from error
        yield

    def list_names(self, folder: Path) -> set[str]:
        """Return the names in a directory; empty if it does not exist."""
        try:
            return {key.removeprefix(f"{_key(folder)}/") for key in self._files.ls(_key(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def checksums(self, folder: Path) -> dict[str, str]:
        """Return the SHA-256 of every object below a directory, except the manifest, by relative name."""
        versions = {name: (str(folder / name), version) for name, version in self._below(folder).items() if name != MANIFEST}
        unknown = [name for name, version in versions.items() if version not in self._hashes]
        for name, content in self._read(folder, unknown).items():
            self._hashes[versions[name]] = hashlib.sha256(content).hexdigest()
        return {name: self._hashes[version] for name, version in versions.items()}

    def read(self, path: Path) -> bytes:
        """Return the content of an object."""
        return self._files.cat_file(_key(path))

    def write(self, path: Path, content: bytes) -> None:
        """Write an object atomically."""
        self._files.pipe_file(_key(path), content)

    replace = write

    def staging_dir(self, folder: Path) -> Path:
        """Return a new local directory for files that grow and belong into `folder`."""
        return Path(tempfile.mkdtemp(dir=self._scratch))

    def upload(self, near: Path, folder: Path) -> None:
        """Copy the files of a staging directory to `folder`.

        Raises:
            InputError: the directory cannot be written.
        """
        try:
            self._copy(near, folder, _files_below(near))
        except self.write_errors as error:
            reason = error_summary(error)
            raise InputError(f"{folder} cannot be written ({reason}); fix the permissions, and rerun the same command") from error

    @contextlib.contextmanager
    def local_copy(self, folder: Path) -> Iterator[Path]:
        """Provide a local directory with the files of `folder` while the context lasts."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as near:
            for name, content in self._read(folder, self._below(folder)).items():
                path = Path(near, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield Path(near)

    def list_steps(self, directory: Path) -> list[Path]:
        """Return the complete step directories, in ascending order."""
        return [path for path, complete in self._list_steps(directory) if complete]

    def pending_path(self, directory: Path, name: str) -> Path:
        """Return the local path of a step directory until it is complete."""
        return self._scratch / name

    def prepare_save(self, directory: Path, name: str) -> None:
        """Remove the remains of interrupted saves, and a damaged step of this name."""
        self.remove_incomplete(directory)
        shutil.rmtree(self._scratch / name, ignore_errors=True)
        for path in self.list_steps(directory):
            if path.name == name:  # it is damaged: an intact one would have been resumed from
                log.warning("checkpoint %s is damaged and is written again", path)
                self.delete(path)

    def commit(self, pending: Path, final: Path) -> None:
        """Copy all files, read them back, then copy the manifest."""
        names = [name for name in _files_below(pending) if name != MANIFEST]
        self._copy(pending, final, names)
        if self.checksums(final) != json.loads((pending / MANIFEST).read_text()):
            raise OSError(f"the copy in {final} differs from the original")
        self._copy(pending, final, [MANIFEST])
        shutil.rmtree(pending)

    def delete(self, path: Path) -> None:
        """Delete a step directory, manifest first."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(_key(path / MANIFEST))
        self._files.rm(_key(path), recursive=True)

    def remove_incomplete(self, directory: Path) -> None:
        """Delete step directories without a manifest."""
        for path, complete in self._list_steps(directory):
            if not complete:
                self._files.rm(_key(path), recursive=True)

    def _list_steps(self, directory: Path) -> list[tuple[Path, bool]]:
        """Return the step directories in ascending order, and whether each has a manifest."""
        names = self._below(directory)
        numbers = {name.split("/")[0] for name in names if "/" in name}
        return [(directory / number, f"{number}/{MANIFEST}" in names) for number in sorted(filter(str.isdecimal, numbers), key=int)]

    def _read(self, folder: Path, names: Iterable[str]) -> dict[str, bytes]:
        """Read objects concurrently."""
        keys = {name: _key(folder / name) for name in names}
        contents = self._files.cat(list(keys.values())) if keys else {}
        return {name: contents[key] for name, key in keys.items()}

    def _copy(self, near: Path, folder: Path, names: Sequence[str]) -> None:
        """Upload local files concurrently."""
        self._files.pipe({_key(folder / name): (near / name).read_bytes() for name in names})

    def _below(self, folder: Path) -> dict[str, str]:
        """Return relative name -> version of all objects below a directory."""
        prefix = _key(folder) + "/"
        objects = self._files.find(prefix, detail=True)
        return {key.removeprefix(prefix): info["generation"] for key, info in objects.items() if key.startswith(prefix) and key[-1] != "/"}


def _files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _key(path: Path) -> str:
    """Return bucket and object name."""
    return str(path).removeprefix("gs://")


LOCAL, GCS = LocalStorage(), GCSStorage()
