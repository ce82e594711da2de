"""Reads the sets that users have: those bundled with aeon, and files and folders on disk."""

import importlib.util
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nutime_jax.data.formats import READERS, array_names
from nutime_jax.data.series import clean_series
from nutime_jax.errors import InputError

log = logging.getLogger(__name__)

BUNDLED = (
    "ACSF1",
    "ArrowHead",
    "BasicMotions",
    "GunPoint",
    "ItalyPowerDemand",
    "JapaneseVowels",
    "OSULeaf",
    "PickupGestureWiimoteZ",
)
"""The classification sets of the UCR and UEA archives that come whole with aeon (its UnitTest is a cut of Chinatown)."""


@dataclass(frozen=True)
class Cases:
    """Series (channels, time) of any lengths, and one label a case, as text; None without labels.

    ids: what the file calls each case, as text; None where it gives them no names.
    """

    series: list[np.ndarray]
    labels: np.ndarray | None
    ids: np.ndarray | None = None


@dataclass(frozen=True)
class DatasetFiles:
    """A set on disk: one file that holds both splits, or a file a split; test is None where there is none."""

    name: str
    train: Path
    test: Path | None

    def read(self, split: str) -> Cases:
        """Reads "train" or "test"; see `clean_series` for missing values.

        Raises:
            InputError: see `read_raw`; or a case that cannot be cleaned.
        """
        return self.clean(self.read_raw(split), split)

    def read_raw(self, split: str) -> Cases:
        """Reads "train" or "test" as it stands in the file, missing values and all.

        Raises:
            InputError: the split is absent, or a file does not hold what its name says.
        """
        path = self.path(split)
        series, labels, ids = READERS[path.suffix.lower()](path, split)
        if not len(series):
            raise InputError(f"{path} holds no series; remove it")
        series = [np.atleast_2d(one) for one in series]
        channels = sorted({len(one) for one in series})
        if len(channels) > 1:
            raise InputError(f"cases of {path} ({split}) have {channels} channels; every case of a set needs the same number")
        labels = None if labels is None else label_texts(np.asarray(labels), f"{path} ({split})")
        return Cases(series, labels, None if ids is None else np.array([str(one) for one in ids]))

    def clean(self, raw: Cases, split: str) -> Cases:
        """What `read` gives, of what `read_raw` gave."""
        where = f"{self.path(split)} ({split})"
        return replace(raw, series=[clean_series(one, name=f"case {i} of {where}") for i, one in enumerate(raw.series)])

    def path(self, split: str) -> Path:
        """The file of "train" or "test"."""
        path = {"train": self.train, "test": self.test}[split]
        if path is None:
            raise InputError(f"set {self.name} has no test split beside {self.train}; leave it out of the evaluation")
        return path


def label_texts(labels: np.ndarray, where: str) -> np.ndarray:
    """Labels as text; whole numbers in floats are written as such, "1" and not "1.0"."""
    missing = [label is None or label != label or label == "" for label in labels.tolist()]
    if any(missing):
        raise InputError(f"case {missing.index(True)} of {where} has no label; give it one, or remove the column of labels")
    if labels.dtype.kind == "f" and (labels == np.rint(labels)).all() and np.abs(labels).max() < 2**53:
        labels = labels.astype(np.int64)
    return np.array([label.decode() if isinstance(label, bytes) else str(label) for label in labels.tolist()])


def find_all_datasets(sources: Iterable[str]) -> list[DatasetFiles]:
    """The sets of several sources, each file once; sets of one name are told apart by their folders.

    Raises:
        InputError: see `find_datasets`; or two sets cannot be told apart.
    """
    sets = list({one.train.absolute(): one for source in sources if source for one in find_datasets(source)}.values())
    counts = Counter(one.name for one in sets)
    sets = [replace(one, name=f"{one.train.parent.name}/{one.name}") if counts[one.name] > 1 else one for one in sets]
    (name, count), *_ = Counter(one.name for one in sets).most_common(1) or [("", 0)]
    if count > 1:
        raise InputError(f"{count} sets are called {name}; rename one, or name fewer sources")
    return sets


def find_datasets(source: str) -> list[DatasetFiles]:
    """The sets that a name stands for, sorted by name.

    In a folder, what is no set is passed over: hidden files, .npz files without series, .txt files that are not a train and a test
    split, and the further copies of a set that the archives give: in several formats, a channel at a time, made equal.

    Args:
        source: "bundled" (the eight sets of BUNDLED), one of their names, a file (see `formats.READERS`), or a folder of such
            files, `<name>_TRAIN` and `<name>_TEST` paired, searched to any depth.

    Raises:
        InputError: no such name, file or folder, or a folder without sets.
    """
    if source == "bundled":
        return [_bundled(name) for name in BUNDLED]
    if source in BUNDLED:
        return [_bundled(source)]
    path = Path(source).expanduser()
    if path.is_file():
        return [_find_set(path)]
    if not path.is_dir():
        raise InputError(f"{source!r} is no file, no folder and no bundled set; bundled are {', '.join(BUNDLED)}")
    files = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names if not name.startswith("."))
    sets = _unique([_set_of(file) for file in files if file.suffix.lower() in READERS and _belongs(file)])
    if not sets:
        raise InputError(f"folder {path} holds no set in a {', '.join(READERS)} file")
    return sets


def _find_set(file: Path) -> DatasetFiles:
    if file.suffix.lower() == ".zip":
        raise InputError(_zip_sentence(file))
    if file.suffix.lower() not in READERS or (file.suffix.lower() == ".txt" and _base_and_split(file)[1] is None):
        raise InputError(f"{file} is not a file of series; known are {', '.join(READERS)}, of which .txt as <name>_TRAIN.txt")
    one = _set_of(file)
    if one is None:
        raise InputError(f"{file} is a test split, or labels alone; give its train split, or their folder")
    return one


def _zip_sentence(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return f"{path} cannot be read as .zip ({error}); fetch it again"
    unsafe = [name for name in names if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/")]
    if unsafe:
        return f"{path} is unsafe: its member {unsafe[0]!r} would be unpacked outside the folder; do not unpack it"
    return f"{path} is an archive; unpack it, and give the folder"


def _bundled(name: str) -> DatasetFiles:
    # Found, not imported: importing aeon takes a second.
    folder = Path(importlib.util.find_spec("aeon").submodule_search_locations[0]) / "datasets" / "data" / name
    return DatasetFiles(name, folder / f"{name}_TRAIN.ts", folder / f"{name}_TEST.ts")


def _set_of(file: Path) -> DatasetFiles | None:
    """`A_TRAIN.ts` and `A_TEST.ts` are two splits, `A.npz` may hold both, a lone `A.ts` is a train split.

    None for a test split, and for the labels of `y_train.npy`. `X_train.npy` and the like are named after their folder.
    """
    base, split = _base_and_split(file)
    if split == "test" or (file.suffix.lower() == ".npy" and base.lower() == "y" and _sibling(file, "x" + file.stem[1:])):
        return None
    name = file.absolute().parent.name if file.suffix.lower() == ".npy" and base.lower() == "x" else base
    if split == "train":
        return DatasetFiles(name, file, _sibling(file, f"{base}_test"))
    return DatasetFiles(name, file, file if file.suffix.lower() == ".npz" and "X_test" in array_names(file) else None)


def _base_and_split(file: Path) -> tuple[str, str | None]:
    base, _, split = file.stem.rpartition("_")
    return (base, split.lower()) if base and split.lower() in ("train", "test") else (file.stem, None)


def _belongs(file: Path) -> bool:
    """Whether a file of a folder is meant as series; a file that is named itself always is."""
    base, split = _base_and_split(file)
    if file.suffix.lower() == ".txt":
        return split is not None and _sibling(file, f"{base}_train") is not None and _sibling(file, f"{base}_test") is not None
    names = array_names(file) if file.suffix.lower() == ".npz" and split != "test" else []
    if names and not {"X", "X_train"} & set(names):
        log.warning("%s is no set, and is passed over: it holds %s, and neither X_train nor X", file, ", ".join(names))
        return False
    return True


def _unique(found: list[DatasetFiles | None]) -> list[DatasetFiles]:
    """Each set once, sorted by name: of several formats the one with a test split, then the first of READERS."""
    ranked = sorted(filter(None, found), key=lambda one: (one.test is None, list(READERS).index(one.train.suffix.lower())))
    sets: dict[tuple, DatasetFiles] = {}
    for one in ranked:
        # Only names that say which split a file holds make two files of one name copies of each other.
        split = _base_and_split(one.train)[1]
        sets.setdefault((one.train.parent, one.name, split or one.train.suffix), one)
    return sorted((one for one in sets.values() if not _is_variant(one, sets)), key=lambda one: (one.name, one.train))


def _is_variant(one: DatasetFiles, sets: Iterable[tuple]) -> bool:
    """Whether a set lies beside the one that it was made of.

    The UEA archive gives a set also a channel at a time, `A_TRAIN.arff` and `ADimension1_TRAIN.arff`; aeon's copies of
    the archives give it also with equal lengths and without missing values, `A_eq_TRAIN.ts` and `A_nmv_TRAIN.ts`.
    """
    wholes = {one.name.rpartition("Dimension")[0], one.name.removesuffix("_nmv").removesuffix("_eq")} - {"", one.name}
    return any((one.train.parent, whole, "train") in sets for whole in wholes)


def _sibling(file: Path, stem: str) -> Path | None:
    """The file of another stem, in any case of letters, beside this one."""
    name = (stem + file.suffix).lower()
    return next((other for other in sorted(file.parent.iterdir()) if other.name.lower() == name), None)
