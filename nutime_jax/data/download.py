"""Download of the archives that NuTime was pretrained on: each dataset once, complete or not at all."""

import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nutime_jax.errors import InputError, extra

TRANSFER = {
    "SleepEEG": "https://figshare.com/ndownloader/articles/19930178/versions/1",
    "Epilepsy": "https://figshare.com/ndownloader/articles/19930199/versions/2",
    "FD-A": "https://figshare.com/ndownloader/articles/19930205/versions/1",
    "FD-B": "https://figshare.com/ndownloader/articles/19930226/versions/1",
    "HAR": "https://figshare.com/ndownloader/articles/19930244/versions/1",
    "Gesture": "https://figshare.com/ndownloader/articles/19930247/versions/1",
    "ECG": "https://figshare.com/ndownloader/articles/19930253/versions/1",
    "EMG": "https://figshare.com/ndownloader/articles/19930250/versions/1",
}
"""The eight transfer datasets as deposited by the authors of TF-C (NeurIPS 2022)."""

ARCHIVES = ("ucr", "uea", "transfer")
TIMEOUT = 60
"""Seconds without an answer after which a server counts as unreachable."""


def archive_sets(archive: str) -> list[str]:
    """Return the names of the datasets of an archive: 128 in "ucr", 30 in "uea", 8 in "transfer".

    Raises:
        InputError: the archive is unknown.
    """
    if archive not in ARCHIVES:
        raise InputError(f"archive {archive!r} is unknown; choose one of {', '.join(ARCHIVES)}")
    if archive == "transfer":
        return sorted(TRANSFER)
    with extra("data"):
        from aeon.datasets import tsc_datasets

    return sorted(tsc_datasets.univariate if archive == "ucr" else tsc_datasets.multivariate)


def download_set(archive: str, name: str, folder: Path) -> Path:
    """Download a dataset to `folder/archive/name` unless it exists, and return this path.

    Raises:
        InputError: the download fails, or is not the dataset.
    """
    target = folder / archive / name
    if target.is_dir():
        return target
    with _whole(target) as scratch:
        fetch = _fetch_transfer if archive == "transfer" else _fetch_archive
        try:
            fetch(name, scratch)
        except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:  # URLError is an OSError
            reason = " ".join(str(error).split())
            raise InputError(f"{name} of {archive} cannot be downloaded ({reason}); rerun the command to resume") from error
    return target


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Yield a folder that is renamed to the target when the block succeeds."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target.parent} cannot be written ({error.strerror}); choose another --to") from error
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch_archive(name: str, folder: Path) -> None:
    """Download the .ts files of both splits, with the unequal lengths and missing values of the archive."""
    with extra("data"):
        from aeon.datasets import load_classification

    with tempfile.TemporaryDirectory(dir=folder) as fetched:
        load_classification(name, extract_path=fetched, load_equal_length=False, load_no_missing=False)
        for split in ("TRAIN", "TEST"):
            file = f"{name}_{split}.ts"
            (Path(fetched) / name / file).rename(folder / file)


def _fetch_transfer(name: str, folder: Path) -> None:
    """Download the deposited tensors as one .npz file, without the validation split."""
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "packed.zip"
        with urllib.request.urlopen(TRANSFER[name], timeout=TIMEOUT) as answer, packed.open("wb") as file:
            shutil.copyfileobj(answer, file)
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(scratch)
        arrays = {}
        for split in ("train", "test"):
            (path,) = sorted(Path(scratch).rglob(f"{split}.pt"))[:1] or [Path(scratch) / f"{split}.pt"]
            arrays[f"X_{split}"], arrays[f"y_{split}"] = _read_pt(path)
        np.savez(folder / f"{name}.npz", **arrays)


def _read_pt(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and labels of a tensor file, loaded without executing code."""
    with extra("torch"):
        import torch
    content = torch.load(path, weights_only=True, map_location="cpu")
    return content["samples"].numpy(), content["labels"].numpy()
