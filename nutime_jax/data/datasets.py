"""Datasets that users have: those bundled with aeon, and files and folders on disk."""

import importlib.util
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nutime_jax.data.columns import BY_NAME, NAMING, Columns
from nutime_jax.data.formats import READERS, array_names, file_suffix, read_file
from nutime_jax.data.series import Cases, clean_series, is_missing
from nutime_jax.errors import InputError, missing_extra
from nutime_jax.options import nearest
from nutime_jax.storage import check_regular, error_summary

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

NOT_SERIES = f"{{}} is not a file of series; supported are {', '.join(READERS)}, of which .txt as <name>_TRAIN.txt"


@dataclass(frozen=True)
class DatasetFiles:
    """A dataset on disk: one file with both splits, or one file per split; test is None where it is absent.

    columns: columns of its tables, where their names do not give their role.
    """

    name: str
    train: Path
    test: Path | None
    columns: Columns = BY_NAME

    def read(self, split: str) -> Cases:
        """Return the cases of "train" or "test", without missing values; see `clean_series`.

        Raises:
            InputError: see `read_raw`; or a case that cannot be cleaned.
        """
        return self.clean(self.read_raw(split), split)

    def read_labelled(self, split: str) -> Cases:
        """Return the cases of "train" or "test" that have a class; the others are skipped, and counted in a log message.

        Raises:
            InputError: see `read`; or no case has a label, or the labels are real numbers.
        """
        cases, where = self.read(split), f"{self.path(split)} ({split})"
        if cases.regression:
            raise InputError(f"{where} has real numbers as labels; a classification needs classes: text, whole numbers or booleans")
        labelled = [] if cases.labels is None else np.flatnonzero(cases.labels != "")
        if not len(labelled):
            raise InputError(f"{where} has no labels; add a column `label`, or name it ({NAMING})")
        if len(labelled) < len(cases.labels):
            log.warning("%d of %d cases of %s have no label, and are skipped", len(cases.labels) - len(labelled), len(cases.labels), where)
        ids = None if cases.ids is None else cases.ids[labelled]
        return replace(cases, series=[cases.series[i] for i in labelled], labels=cases.labels[labelled], ids=ids)

    def read_raw(self, split: str) -> Cases:
        """Return the cases of "train" or "test" as the file has them, with missing values; labels and ids are text.

        Raises:
            InputError: the split is absent, or a file does not have the format of its suffix.
        """
        path = self.path(split)
        cases = read_file(path, split, self.columns)
        if not len(cases.series):
            raise InputError(f"{path} has no series in its {split} split; add cases, or remove the split")
        series = [np.atleast_2d(case) for case in cases.series]
        channels = sorted({len(case) for case in series})
        if len(channels) > 1:
            raise InputError(f"cases of {path} ({split}) have {channels} channels; every case of a dataset needs the same number")
        return text_cases(replace(cases, series=series), f"{path} ({split})")

    def clean(self, raw: Cases, split: str) -> Cases:
        """Return the cases of `read_raw` without missing values."""
        where = f"{self.path(split)} ({split})"
        return replace(raw, series=[clean_series(case, name=f"case {i} of {where}") for i, case in enumerate(raw.series)])

    def path(self, split: str) -> Path:
        """Return the file of "train" or "test"."""
        path = {"train": self.train, "test": self.test}[split]
        if path is None:
            raise InputError(f"dataset {self.name} has no test split beside {self.train}; leave it out of the evaluation")
        try:
            check_regular(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error_summary(error)}); pass a file") from error
        return path


def read_path(path: str | os.PathLike, *, columns: Columns = BY_NAME) -> Cases:
    """Return the cases of one file, without missing values; of a file with two splits those of training.

    Raises:
        InputError: the path is not a file of series, see `formats.READERS`.
    """
    path = Path(path).expanduser()
    if path.is_file() and file_suffix(path) == ".txt" and _base_and_split(path)[1] is None:
        raise InputError(NOT_SERIES.format(path))
    if not path.is_file() or file_suffix(path) not in READERS:
        problem = "is not a file of series" if path.exists() else "does not exist"
        raise InputError(f"{str(path)!r} {problem}; pass the path of a {', '.join(READERS)} file, or the series themselves")
    return DatasetFiles(path.stem, train=path, test=None, columns=columns).read("train")


def text_cases(cases: Cases, where: str) -> Cases:
    """Return cases with labels and ids as text; `regression` is set where labels are real numbers."""
    labels, real = (None, False) if cases.labels is None else label_texts(np.asarray(cases.labels))
    if labels is not None and len(labels) != len(cases.series):
        raise InputError(f"{where} has {len(cases.series)} cases and {len(labels)} labels; write one label per case")
    return replace(cases, labels=labels, ids=id_texts(cases.ids), regression=cases.regression or real)


def label_texts(labels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return labels as text, "" where missing, and whether they are real numbers. Whole floats are written as integers."""
    values = [None if is_missing(label) else label for label in labels.tolist()]
    floats = [value for value in values if isinstance(value, float)]
    whole = all(value.is_integer() and abs(value) < 2**53 for value in floats)
    if whole:
        values = [int(value) if isinstance(value, float) else value for value in values]
    texts = ["" if value is None else value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return np.array(texts, str), not whole


def id_texts(ids: np.ndarray | None) -> np.ndarray | None:
    return None if ids is None else label_texts(np.asarray(ids))[0]


def find_all_datasets(sources: Iterable[str], *, columns: Columns = BY_NAME) -> list[DatasetFiles]:
    """Return the datasets of several sources, each file once; datasets of one name are distinguished by their folders.

    Raises:
        InputError: see `find_datasets`; or two datasets of one name are in folders of one name.
    """
    datasets: dict[Path, DatasetFiles] = {}
    for source in filter(None, sources):
        for dataset in find_datasets(source, columns=columns):
            datasets[dataset.train.absolute()] = dataset
    counts = Counter(dataset.name for dataset in datasets.values())
    named = [
        replace(dataset, name=f"{dataset.train.parent.name}/{dataset.name}") if counts[dataset.name] > 1 else dataset
        for dataset in datasets.values()
    ]
    for name, count in Counter(dataset.name for dataset in named).items():
        if count > 1:
            raise InputError(f"{count} datasets are called {name}; rename one, or name fewer sources")
    return named


def find_datasets(source: str, *, columns: Columns = BY_NAME) -> list[DatasetFiles]:
    """Return the datasets that a name stands for, sorted by name.

    In a folder, these files are skipped: hidden files, .npz files without series, .txt files that are not a train and a test
    split, and further copies of a dataset in the archives: in several formats, one file per channel, made equal.

    Args:
        source: "bundled" (the eight datasets of BUNDLED), one of their names, a file (see `formats.READERS`), or a folder of
            such files, `<name>_TRAIN` and `<name>_TEST` paired, searched to any depth.
        columns: columns of tables, where their names do not give their role.

    Raises:
        InputError: no such name, file or folder, or a folder without datasets.
    """
    if source == "bundled":
        return [_bundled(name) for name in BUNDLED]
    if source in BUNDLED:
        return [_bundled(source)]
    path = Path(source).expanduser()
    if os.path.isfile(path):  # `is_file` raises for a long name
        return [replace(_find_dataset(path), columns=columns)]
    if not os.path.isdir(path):
        guess = nearest(source, BUNDLED)
        raise InputError(f"{source!r} is not a file, a folder or a bundled dataset{guess}; bundled are {', '.join(BUNDLED)}")
    try:
        files = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names if not name.startswith("."))
    except RecursionError as error:
        raise InputError(f"folder {path} has folders too deep to be searched; pass one of those inside") from error
    datasets = _unique([_dataset_of(file) for file in files if file_suffix(file) in READERS and _belongs(file)])
    if not datasets:
        raise InputError(f"folder {path} has no dataset in a {', '.join(READERS)} file; pass another folder")
    return [replace(dataset, columns=columns) for dataset in datasets]


def _find_dataset(file: Path) -> DatasetFiles:
    suffix = file_suffix(file)
    if suffix == ".zip":
        raise InputError(_zip_message(file))
    if suffix not in READERS or (suffix == ".txt" and _base_and_split(file)[1] is None):
        raise InputError(NOT_SERIES.format(file))
    dataset = _dataset_of(file)
    if dataset is None:
        raise InputError(f"{file} is a test split, or labels alone; pass its train split, or their folder")
    return dataset


def _zip_message(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return f"{path} cannot be read as .zip ({error}); download it again"
    unsafe = [name for name in names if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/")]
    if unsafe:
        return f"{path} is unsafe: its member {unsafe[0]!r} would be unpacked outside the folder; do not unpack it"
    return f"{path} is an archive; unpack it, and pass the folder"


def _bundled(name: str) -> DatasetFiles:
    aeon = importlib.util.find_spec("aeon")  # not imported: that takes a second
    if aeon is None:
        raise missing_extra("aeon", "data")
    folder = Path(aeon.submodule_search_locations[0]) / "datasets" / "data" / name
    return DatasetFiles(name, folder / f"{name}_TRAIN.ts", folder / f"{name}_TEST.ts")


def _dataset_of(file: Path) -> DatasetFiles | None:
    """Return a file and its test split: `A_TRAIN.ts` and `A_TEST.ts`, `A.npz` with both, or a lone `A.ts`, a train split.

    None for a test split, and for the labels of `y_train.npy`. `X_train.npy` and the like are named after their folder.
    """
    base, split = _base_and_split(file)
    suffix = file_suffix(file)
    if split == "test" or (suffix == ".npy" and base.lower() == "y" and _sibling(file, "x" + _stem(file)[1:])):
        return None
    name = file.absolute().parent.name if suffix == ".npy" and base.lower() == "x" else base
    if split == "train":
        return DatasetFiles(name, file, _sibling(file, f"{base}_test"))
    return DatasetFiles(name, file, file if suffix == ".npz" and "X_test" in array_names(file) else None)


def _stem(file: Path) -> str:
    return file.stem.removesuffix(file_suffix(file)) if file.suffix.lower() == ".gz" else file.stem


def _base_and_split(file: Path) -> tuple[str, str | None]:
    stem = _stem(file)
    base, _, split = stem.rpartition("_")
    return (base, split.lower()) if base and split.lower() in ("train", "test") else (stem, None)


def _belongs(file: Path) -> bool:
    """Whether a file of a folder is meant as series; a file that is named itself always is."""
    if not file.is_file():
        log.warning("%s is not a file, and is skipped", file)
        return False
    base, split = _base_and_split(file)
    if file_suffix(file) == ".txt":
        return split is not None and _sibling(file, f"{base}_train") is not None and _sibling(file, f"{base}_test") is not None
    names = array_names(file) if file_suffix(file) == ".npz" and split != "test" else []
    if names and not {"X", "X_train"} & set(names):
        log.warning("%s is not a dataset, and is skipped: it has %s, and neither X_train nor X", file, ", ".join(names))
        return False
    return True


def _unique(datasets: list[DatasetFiles | None]) -> list[DatasetFiles]:
    """Return each dataset once, sorted by name: of several formats that with a test split, then the first of READERS."""
    formats = list(READERS)
    ranked = sorted(filter(None, datasets), key=lambda dataset: (dataset.test is None, formats.index(file_suffix(dataset.train))))
    chosen: dict[tuple, DatasetFiles] = {}
    for dataset in ranked:
        # Only names with a split make two files of one name copies of each other.
        split = _base_and_split(dataset.train)[1]
        chosen.setdefault((dataset.train.parent, dataset.name, split or file_suffix(dataset.train)), dataset)
    originals = [dataset for dataset in chosen.values() if not _is_variant(dataset, chosen)]
    return sorted(originals, key=lambda dataset: (dataset.name, dataset.train))


def _is_variant(dataset: DatasetFiles, chosen: Iterable[tuple]) -> bool:
    """Whether a dataset lies beside the dataset that it was made from.

    The UEA archive has datasets also as one file per channel, `A_TRAIN.arff` and `ADimension1_TRAIN.arff`; aeon's copies of
    the archives have them also with equal lengths and without missing values, `A_eq_TRAIN.ts` and `A_nmv_TRAIN.ts`.
    """
    name = dataset.name
    wholes = {name.rpartition("Dimension")[0], name.removesuffix("_nmv").removesuffix("_eq")} - {"", name}
    return any((dataset.train.parent, whole, "train") in chosen for whole in wholes)


def _sibling(file: Path, stem: str) -> Path | None:
    """Return the file of another stem beside a file, in any case of letters."""
    name = (stem + file.name.removeprefix(_stem(file))).lower()
    return next((other for other in sorted(file.parent.iterdir()) if other.name.lower() == name), None)
