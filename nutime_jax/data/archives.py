"""Reads the sets that users have: those bundled with aeon, and files and folders on disk."""

import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    """Series as cleaned arrays (channels, time) of any lengths, and one label a case, as text; None without labels."""

    series: list[np.ndarray]
    labels: np.ndarray | None


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
        return Cases(cleaned, None if labels is None else np.asarray([str(label) for label in labels]))


def find_all(sources: Iterable[str]) -> list[SetFiles]:
    """The sets of several sources, each file once; sets of one name are told apart by their folders.

    Raises:
        InputError: see `find_sets`; or two sets cannot be told apart.
    """
    sets = list({one.train.absolute(): one for source in sources if source for one in find_sets(source)}.values())
    counts = Counter(one.name for one in sets)
    sets = [replace(one, name=f"{one.train.parent.name}/{one.name}") if counts[one.name] > 1 else one for one in sets]
    (name, count), *_ = Counter(one.name for one in sets).most_common(1) or [("", 0)]
    if count > 1:
        raise InputError(f"{count} sets are called {name}; rename one, or name fewer sources")
    return sets


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
        sets = _pair([path])
        if not sets:
            raise InputError(f"{path} is a test split; give its train split, or their folder")
        return sets
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
        base, _, split = file.stem.rpartition("_")
        if base and split.upper() == "TRAIN":
            sets.append(SetFiles(base, file, _sibling(file, f"{base}_test")))
        elif not (base and split.upper() == "TEST"):
            sets.append(SetFiles(file.stem, file, file if file.suffix == ".npz" else None))
    return sorted(sets, key=lambda one: (one.name, one.train))


def _sibling(file: Path, stem: str) -> Path | None:
    """The file of another stem, in any case of letters, beside this one."""
    others = sorted(file.parent.glob(f"*{file.suffix}"))
    return next((other for other in others if other.stem.lower() == stem.lower()), None)


def _read_npz(path: Path, split: str) -> tuple[list[np.ndarray], np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (f"X_{split}", f"y_{split}") if name in file}
            names = ", ".join(file.files)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as .npz ({_line(error)}); write it with numpy.savez, without objects") from error
    if f"X_{split}" not in arrays:
        raise InputError(f"{path} has no array X_{split}; it holds {names}")
    x, y = arrays[f"X_{split}"], arrays.get(f"y_{split}")
    if x.ndim not in (2, 3) or (y is not None and y.shape != (len(x),)):
        shapes = f"X_{split} {x.shape}" + ("" if y is None else f" and y_{split} {y.shape}")
        raise InputError(f"{path}: {shapes} should be (cases, [channels,] time) and (cases,)")
    return list(x), y


def _read_ts(path: Path, split: str) -> tuple[list[np.ndarray], np.ndarray | None]:
    from aeon.datasets import load_from_ts_file

    try:
        x, y = load_from_ts_file(str(path), return_meta_data=False)
    except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path} cannot be read as .ts ({_line(error)})") from error
    return list(x), y if len(y) == len(x) else None


def _read_tsv(path: Path, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """UCR: the label, then the values, a case a line."""
    table = _read_table(path, separator="\t")
    return list(table[:, 1:]), table[:, 0]


def _read_csv(path: Path, split: str) -> tuple[list[np.ndarray], None]:
    """A series a line, without header or labels; empty cells are missing values, and lines may differ in length."""
    return list(_read_table(path, separator=",")), None


def _read_table(path: Path, *, separator: str) -> np.ndarray:
    import pandas

    try:
        width = max((line.count(separator) + 1 for line in path.read_text().splitlines()), default=0)
        frame = pandas.read_csv(path, header=None, sep=separator, names=range(width))
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table of numbers ({_line(error)})") from error
    numbers = frame.apply(pandas.to_numeric, errors="coerce")
    wrong = np.argwhere((numbers.isna() & frame.notna()).to_numpy())
    if len(wrong):
        row, column = wrong[0]
        raise InputError(f"{path}, line {row + 1}, column {column + 1}: {frame.iat[row, column]!r} is not a number")
    return numbers.to_numpy(np.float64)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
