"""Files of features, written in blocks and moved to their path when complete."""

import csv
import fcntl
import glob
import os
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from nutime_jax.errors import InputError, extra

COPIED = 1 << 20
"""Bytes per copied block."""


class FeatureFile(Protocol):
    """File that `write` adds features to, float32 (cases, …), with labels and ids as text if present.

    `finish` completes the file; `close` is always called.
    """

    def write(self, features: np.ndarray, *, labels: np.ndarray | None, ids: np.ndarray | None) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


@contextmanager
def open_features(path: Path, *, safe_csv: bool = False) -> Iterator[FeatureFile]:
    """Yield a file of features in the format of its suffix (see SUFFIXES). It appears at its path when complete.

    .npy has only features; .npz has `features`, `labels` and `ids`; .csv and .parquet have one row per case, with the columns
    `id` and `label`, if present, and f0, f1, ….

    Args:
        path: the file.
        safe_csv: whether to quote formulas in the texts of a .csv, see `quote_formula`.

    Raises:
        InputError: the suffix is not supported, or the file cannot be written.
    """
    check_output(path)
    try:
        _remove_leftovers(path)
        with _exit_on_sigterm(), tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder, _locked(Path(folder)):
            pending = Path(folder) / path.name
            kind = SUFFIXES[path.suffix.lower()]
            file = kind(pending, safe=safe_csv) if kind is _CsvFile else kind(pending)
            with closing(file):
                yield file
                file.finish()
            os.replace(pending, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}); choose another file") from error


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Make SIGTERM an exit that removes what is incomplete, unless somebody else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Mark a folder as in use while this process lives."""
    with (folder / ".lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _remove_leftovers(path: Path) -> None:
    """Delete the folders of runs that were killed while they wrote this file."""
    for lock in path.absolute().parent.glob(f".{glob.escape(path.name)}-*/.lock"):
        with suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)


def check_output(path: Path) -> None:
    """Raise InputError unless a file of features can be written to this path."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} has no suffix that says how to write features; choose one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; choose another file")
    if not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {path} (folder {path.absolute().parent} does not exist); create it, or choose another file")


def quote_formula(text: str) -> str:
    """Return a text that spreadsheets do not execute: an apostrophe stands before what begins like a formula, except numbers."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    with suppress(ValueError):
        float(text)
        return text
    return "'" + text


class _NpyFile:
    """File whose header is written again at the end, with the number of rows, at the same length."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._shape: tuple[int, ...] = (0,)

    def write(self, features: np.ndarray, *, labels: np.ndarray | None, ids: np.ndarray | None) -> None:
        if not self._shape[0]:
            self._header((0, *features.shape[1:]))
        self._file.write(features.astype("<f4", copy=False).tobytes())
        self._shape = (self._shape[0] + len(features), *features.shape[1:])

    def finish(self) -> None:
        self._header(self._shape)
        self.close()

    def close(self) -> None:
        self._file.close()

    def _header(self, shape: tuple[int, ...]) -> None:
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})


class _NpzFile:
    def __init__(self, path: Path):
        self._path, self._features = path, path.with_name("features.npy")
        self._rows = _NpyFile(self._features)
        self._texts: dict[str, list[str]] = {"labels": [], "ids": []}

    def write(self, features: np.ndarray, *, labels: np.ndarray | None, ids: np.ndarray | None) -> None:
        self._rows.write(features, labels=None, ids=None)
        for name, texts in (("labels", labels), ("ids", ids)):
            self._texts[name] += [] if texts is None else texts.tolist()

    def finish(self) -> None:
        self._rows.finish()
        with zipfile.ZipFile(self._path, "w") as file:
            with self._features.open("rb") as source, file.open("features.npy", "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, COPIED)
            for name, texts in self._texts.items():
                if texts:
                    with file.open(f"{name}.npy", "w", force_zip64=True) as target:
                        np.lib.format.write_array(target, np.array(texts), allow_pickle=False)

    def close(self) -> None:
        self._rows.close()


class _CsvFile:
    def __init__(self, path: Path, *, safe: bool):
        self._file: IO[str] = path.open("w", newline="")
        self._text = quote_formula if safe else str
        self._writer = csv.writer(self._file)
        self._started = False

    def write(self, features: np.ndarray, *, labels: np.ndarray | None, ids: np.ndarray | None) -> None:
        texts = {"id": ids, "label": labels}
        texts = {name: column for name, column in texts.items() if column is not None}
        if not self._started:
            self._writer.writerow([*texts, *column_names(features)])
            self._started = True
        line = ",".join(["%.9g"] * features.shape[1])  # nine digits determine a float32
        for row, *cells in zip(features.tolist(), *texts.values(), strict=True):
            self._writer.writerow([*map(self._text, cells), *(line % tuple(row)).split(",")])

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()


class _ParquetFile:
    def __init__(self, path: Path):
        self._path = path
        self._writer = None

    def write(self, features: np.ndarray, *, labels: np.ndarray | None, ids: np.ndarray | None) -> None:
        with extra("data"):
            import pyarrow.parquet

        columns = {name: column for name, column in (("id", ids), ("label", labels)) if column is not None}
        columns |= dict(zip(column_names(features), np.ascontiguousarray(features.T), strict=True))
        table = arrow_table(columns)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema, write_page_checksum=True, use_dictionary=False)
        self._writer.write_table(table)

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def arrow_table(columns: dict[str, np.ndarray]) -> Any:
    """Return a table of Arrow; contiguous columns are not copied.

    Raises:
        InputError: pyarrow is not installed.
    """
    with extra("data"):
        import pyarrow

    return pyarrow.table({name: pyarrow.array(column) for name, column in columns.items()})


def column_names(features: np.ndarray) -> list[str]:
    """Return f0, f1, … for features (cases, features).

    Raises:
        InputError: the features of a case are not a vector.
    """
    if features.ndim != 2:
        raise InputError(f"features of shape {features.shape[1:]} per case make no table; write .npy or .npz, or choose other channels")
    return [f"f{i}" for i in range(features.shape[1])]


SUFFIXES = {".npz": _NpzFile, ".npy": _NpyFile, ".parquet": _ParquetFile, ".csv": _CsvFile}
