"""Where a run lives: a folder of this machine, or one in a bucket, `gs://…`. Nothing else asks which of the two it is.

A bucket has no rename, no append and no lock; an object is there whole or not at all. Neither is it known, when the
network fails, whether something exists: what is decided here is decided by listings, which then raise, never by a "no".
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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nutime_jax.atomic import open_atomically
from nutime_jax.errors import InputError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""The file of a numbered folder that is written last, and says what the others hold."""
_PENDING, _DELETED, _DAMAGED = ".pending-", ".deleted-", "damaged-"


def as_folder(path: str | os.PathLike) -> Path:
    """A path as a user gives it: absolute, ~ included, or in a bucket.

    Raises:
        InputError: an address of another kind, or one in a bucket without the library that speaks to it.
    """
    text = os.fspath(path)
    if found := re.fullmatch(r"gs:/+([^/]+(/.*)?)", text):  # pathlib makes one slash of two
        if importlib.util.find_spec("gcsfs") is None:
            raise InputError(f"{text} is in a bucket; pip install '.[gcs]' to reach it, or mount it and give the path")
        from etils import epath

        return epath.Path(f"gs://{found[1]}")
    if re.match(r"\w+://", text):
        raise InputError(f"{text} is neither a folder of this machine nor gs://BUCKET/FOLDER; mount what it names, and give the path")
    return Path(text).expanduser().absolute()


def place_of(path: str | os.PathLike) -> "Disk | Bucket":
    """What the folder of a path can do."""
    return BUCKET if str(path).startswith("gs://") else DISK


def said(error: BaseException) -> str:
    """What an error has to say, in a line."""
    return ((getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__).splitlines()[0][:300]


class Disk:
    """Folders of this machine, or mounted here. A numbered folder is written beside its place and moved into it."""

    remote = False
    failures = (OSError, ValueError, RuntimeError)
    """What comes up when a folder cannot be written."""
    damage = (OSError, ValueError)
    """What comes up when a file of a numbered folder is not what it was."""

    @contextlib.contextmanager
    def hold(self, folder: Path) -> Iterator[None]:
        """Makes a folder and holds it against other runs, for as long as the context lasts.

        Raises:
            InputError: it cannot be written, or another run holds it.
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

    def names(self, folder: Path) -> set[str]:
        """Of what is in a folder; none if there is no such folder."""
        return {path.name for path in folder.glob("*")}

    def hashes(self, folder: Path) -> dict[str, str]:
        """SHA-256 of every file below a folder but the manifest."""
        names = [name for name in _files_below(folder) if name != MANIFEST]
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def write(self, path: Path, content: bytes) -> None:
        """Writes a new file, which is on the disk when this returns."""
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, path: Path, content: bytes) -> None:
        """Writes a file in one move: readers see the old one or the new one."""
        with open_atomically(path) as file:
            file.write(content)

    def near(self, folder: Path) -> Path:
        """The folder of this machine in which files grow that belong into `folder`; here they are in place."""
        return folder

    def bring(self, near: Path, folder: Path) -> None:
        """Brings what has grown to its place; here it is."""

    @contextlib.contextmanager
    def here(self, folder: Path) -> Iterator[Path]:
        """A folder of this machine that holds the same files, for as long as the context lasts."""
        yield folder

    def numbered(self, directory: Path) -> list[Path]:
        """Numbered folders that were complete once, oldest first."""
        return sorted((path for path in directory.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))

    def begin(self, directory: Path, name: str) -> Path:
        """Where a numbered folder is written until it is complete."""
        return directory / f"{_PENDING}{name}"

    def clear(self, directory: Path, name: str) -> None:
        """Makes room to begin: what an interrupted save has left goes."""
        directory.mkdir(parents=True, exist_ok=True)
        self.sweep(directory)

    def finish(self, pending: Path, final: Path) -> None:
        """Gives a complete folder, manifest included, its number."""
        if final.exists():  # only a damaged one can be in the way: a good one would have been resumed from
            _set_aside(final)
        pending.rename(final)
        descriptor = os.open(final.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Takes its number from a folder; `sweep` removes it."""
        path.rename(path.with_name(f"{_DELETED}{path.name}"))

    def sweep(self, directory: Path) -> None:
        """Removes what an interrupted save or a removal has left; nothing here bears a number of its own."""
        for prefix in (_PENDING, _DELETED):
            for path in directory.glob(f"{prefix}*"):
                shutil.rmtree(path)


def _set_aside(path: Path) -> None:
    """Gives a damaged folder a name that is never read; what had that name before is kept as well."""
    names = (path.with_name(f"{_DAMAGED}{path.name}{suffix}") for suffix in itertools.chain([""], map("-{}".format, itertools.count(2))))
    path.rename(next(name for name in names if not name.exists()))


class Bucket:
    """Folders of Google Cloud Storage. A numbered folder is written on this machine, copied, and counts from its manifest on.

    Without locks two runs in one folder are not told from each other: `.owner` says who came last. A damaged numbered
    folder is not kept aside when its number is written again: that would be a copy of every object.
    """

    remote = True
    damage = (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError)
    """No other: an older checkpoint is not taken because the network fails."""

    @functools.cached_property
    def failures(self) -> tuple[type[Exception], ...]:
        from aiohttp import ClientError
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError

        return (OSError, ValueError, RuntimeError, ClientError, HttpError, GoogleAuthError)

    @functools.cached_property
    def _files(self):
        # Not the newer class, which asks another service, with other rights, what kind of bucket it is, at every call.
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem(use_listings_cache=False)  # what another process has written is seen at once

    @functools.cached_property
    def _scratch(self) -> Path:
        scratch = Path(tempfile.mkdtemp(prefix="nutime-"))
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        return scratch

    @functools.cached_property
    def _hashes(self) -> dict[tuple[str, str], str]:
        """Hashes by object and version, of which none ever changes: each is read once, however often it is verified."""
        return {}

    @contextlib.contextmanager
    def hold(self, folder: Path) -> Iterator[None]:
        try:
            self.write(folder / ".owner", f"{socket.gethostname()} {os.getpid()}\n".encode())
        except self.failures as error:
            raise InputError(f"workdir {folder} cannot be written ({said(error)}); mend the access, or choose another --workdir") from error
        yield

    def names(self, folder: Path) -> set[str]:
        try:
            return {key.removeprefix(f"{_key(folder)}/") for key in self._files.ls(_key(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def hashes(self, folder: Path) -> dict[str, str]:
        found = {name: (str(folder / name), version) for name, version in self._below(folder).items() if name != MANIFEST}
        unknown = [name for name, known in found.items() if known not in self._hashes]
        for name, content in self._read(folder, unknown).items():
            self._hashes[found[name]] = hashlib.sha256(content).hexdigest()
        return {name: self._hashes[known] for name, known in found.items()}

    def read(self, path: Path) -> bytes:
        return self._files.cat_file(_key(path))

    def write(self, path: Path, content: bytes) -> None:
        self._files.pipe_file(_key(path), content)

    replace = write

    def near(self, folder: Path) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))

    def bring(self, near: Path, folder: Path) -> None:
        try:
            self._copy(near, folder, _files_below(near))
        except self.failures as error:
            raise InputError(f"{folder} cannot be written ({said(error)}); mend the access, and give the same command again") from error

    @contextlib.contextmanager
    def here(self, folder: Path) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._scratch) as near:
            for name, content in self._read(folder, self._below(folder)).items():
                path = Path(near, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield Path(near)

    def numbered(self, directory: Path) -> list[Path]:
        return [path for path, complete in self._numbered(directory) if complete]

    def begin(self, directory: Path, name: str) -> Path:
        return self._scratch / name

    def clear(self, directory: Path, name: str) -> None:
        self.sweep(directory)
        shutil.rmtree(self._scratch / name, ignore_errors=True)
        for path in self.numbered(directory):
            if path.name == name:  # a damaged one: a good one would have been resumed from
                log.warning("checkpoint %s is damaged, and written anew", path)
                self.remove(path)

    def finish(self, pending: Path, final: Path) -> None:
        """Copies everything, reads it back, and copies the manifest."""
        names = [name for name in _files_below(pending) if name != MANIFEST]
        self._copy(pending, final, names)
        if self.hashes(final) != json.loads((pending / MANIFEST).read_text()):
            raise OSError("the copy is not what was copied")
        self._copy(pending, final, [MANIFEST])
        shutil.rmtree(pending)

    def remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(_key(path / MANIFEST))
        self._files.rm(_key(path), recursive=True)

    def sweep(self, directory: Path) -> None:
        for path, complete in self._numbered(directory):
            if not complete:
                self._files.rm(_key(path), recursive=True)

    def _numbered(self, directory: Path) -> list[tuple[Path, bool]]:
        """Numbered folders, and whether they have a manifest, in ascending order."""
        found = self._below(directory)
        numbers = {name.split("/")[0] for name in found if "/" in name}
        return [(directory / name, f"{name}/{MANIFEST}" in found) for name in sorted(filter(str.isdecimal, numbers), key=int)]

    def _read(self, folder: Path, names: Iterable[str]) -> dict[str, bytes]:
        """Contents of objects by name, all at once."""
        keys = {name: _key(folder / name) for name in names}
        contents = self._files.cat(list(keys.values())) if keys else {}
        return {name: contents[key] for name, key in keys.items()}

    def _copy(self, near: Path, folder: Path, names: Sequence[str]) -> None:
        """Copies files of this machine, all at once."""
        self._files.pipe({_key(folder / name): (near / name).read_bytes() for name in names})

    def _below(self, folder: Path) -> dict[str, str]:
        """Names of all objects below a folder, relative to it, and their versions."""
        prefix = _key(folder) + "/"
        found = self._files.find(prefix, detail=True)
        return {key.removeprefix(prefix): one["generation"] for key, one in found.items() if key.startswith(prefix) and key[-1] != "/"}


def _files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _key(path: Path) -> str:
    """Bucket and object, as the library names them."""
    return str(path).removeprefix("gs://")


DISK, BUCKET = Disk(), Bucket()
