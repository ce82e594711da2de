"""Reads the sets that users have: those bundled with aeon, and files and folders on disk."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nutime_jax.data.series import clean_series
from nutime_jax.errors import InputError

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

SUFFIXES = (".npz", ".ts", ".tsv", ".csv")


@dataclass(frozen=True)
class Cases:
    """Labelled series: cleaned arrays (channels, time) of any lengths, and one label a case, as text."""

    series: list[np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class SetFiles:
    """A set on disk: one file that holds both splits, or a file a split; test is None where there is none."""

    name: str
    train: Path
    test: Path | None

    def read(self, split: str) -> Cases:
        """Reads "train" or "test"; see `clean_series` for missing values.

        Raises:
            InputError: the split is absent, or a file does not hold what its name says.
        """
        path = {"train": self.train, "test": self.test}[split]
        if path is None:
            raise InputError(f"set {self.name} has no test split; leave it out of the evaluation")
        reader = {".npz": _read_npz, ".ts": _read_ts, ".tsv": _read_tsv, ".csv": _read_csv}[path.suffix]
        series, labels = reader(path, split)
        where = f"{self.name} ({split})"
        if not len(series):
            raise InputError(f"{path} holds no series")
        cleaned = [clean_series(one, name=f"case {i} of {where}") for i, one in enumerate(series)]
        channels = {len(one) for one in cleaned}
        if len(channels) > 1:
            raise InputError(f"cases of {where} have {sorted(channels)} channels; every case of a set needs the same number")
        return Cases(cleaned, np.asarray([str(label) for label in labels]))


def find_sets(source: str) -> list[SetFiles]:
    """The sets that a name stands for, sorted by name.

    Args:
        source: "bundled" (the eight sets of BUNDLED), one of their names, a file (.npz, .ts, .tsv or .csv), or a folder
            of such files, `<name>_TRAIN` and `<name>_TEST` paired, searched to any depth.

    Raises:
        InputError: no such name, file or folder, or a folder without sets.
    """
    if source == "bundled":
        return [_bundled(name) for name in BUNDLED]
    if source in BUNDLED:
        return [_bundled(source)]
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path} is not a file of series; known are {', '.join(SUFFIXES)}")
        return _pair([path])
    if not path.is_dir():
        raise InputError(f"{source!r} is no file, no folder and no bundled set; bundled are {', '.join(BUNDLED)}")
    files = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    sets = _pair([file for file in files if file.suffix in SUFFIXES])
    if not sets:
        raise InputError(f"folder {path} holds no {', '.join(SUFFIXES)} file")
    return sets


def _bundled(name: str) -> SetFiles:
    import aeon.datasets

    folder = Path(aeon.datasets.__file__).parent / "data" / name
    return SetFiles(name, folder / f"{name}_TRAIN.ts", folder / f"{name}_TEST.ts")


def _pair(files: list[Path]) -> list[SetFiles]:
    """One set a name: `X_TRAIN.ts` and `X_TEST.ts` are two splits, `X.npz` holds both, a lone `X.ts` is a train split."""
    sets = []
    for file in files:
        stem = file.stem
        if stem.upper().endswith("_TEST"):
            continue
        if stem.upper().endswith("_TRAIN"):
            test = next((f for f in files if f.suffix == file.suffix and f.parent == file.parent and f.stem == f"{stem[:-6]}_TEST"), None)
            sets.append(SetFiles(stem[:-6], file, test))
        else:
            sets.append(SetFiles(stem, file, file if file.suffix == ".npz" else None))
    return sorted(sets, key=lambda one: (one.name, one.train))


def _read_npz(path: Path, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if f"X_{split}" not in file:
                raise InputError(f"{path} has no array X_{split}; it holds {', '.join(file.files)}")
            x = file[f"X_{split}"]
            y = file[f"y_{split}"] if f"y_{split}" in file else np.zeros(len(x), np.int64)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as .npz ({error}); write it anew with numpy.savez, without objects") from error
    if x.ndim not in (2, 3) or len(x) != len(y):
        raise InputError(f"{path}: X_{split} {x.shape} and y_{split} {y.shape} are not (cases, [channels,] time) and (cases,)")
    return list(x), y


def _read_ts(path: Path, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    from aeon.datasets import load_from_ts_file

    try:
        x, y = load_from_ts_file(str(path), return_meta_data=False)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise InputError(f"{path} cannot be read as .ts ({error})") from error
    return list(x), y


def _read_tsv(path: Path, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """UCR: the label, then the values, a case a line."""
    table = _read_table(path, separator="\t")
    return list(table[:, 1:]), table[:, 0]


def _read_csv(path: Path, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """A series a line, without header or labels; empty cells are missing values."""
    table = _read_table(path, separator=",")
    return list(table), np.zeros(len(table), np.int64)


def _read_table(path: Path, *, separator: str) -> np.ndarray:
    import pandas

    try:
        frame = pandas.read_csv(path, header=None, sep=separator)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table of numbers ({error})") from error
    numbers = frame.apply(pandas.to_numeric, errors="coerce")
    wrong = np.argwhere((numbers.isna() & frame.notna()).to_numpy())
    if len(wrong):
        row, column = wrong[0]
        raise InputError(f"{path}, line {row + 1}, column {column + 1}: {frame.iat[row, column]!r} is not a number")
    return numbers.to_numpy(np.float64)
