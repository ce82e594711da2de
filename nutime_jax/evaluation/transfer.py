"""Transfer tasks: sets with a validation split of their own, kept apart from the test split."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nutime_jax.data.archives import Cases, find_sets
from nutime_jax.data.series import clean_series
from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import Task, read_task


@dataclass(frozen=True)
class TransferTask:
    """A set to classify after pretraining elsewhere.

    task: its name, training and test cases.
    validation: cases that may guide choices; None where the file has none that the test split does not have too (the
        Gesture set of TF-C validates on its test cases), and choices are made inside the training split.
    """

    task: Task
    validation: Cases | None


def read_transfer(path: str | os.PathLike) -> TransferTask:
    """Reads an .npz file of X_train, X_val, X_test and their labels y_….

    Raises:
        InputError: it cannot be read, or a split or its labels are absent.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InputError(f"{path} is no .npz file; write X_train, X_val, X_test and their labels with numpy.savez")
    task = read_task(find_sets(str(path))[0])
    validation = _read_validation(path)
    if validation is not None and _content(validation) & _content(task.test):
        validation = None
    if validation is not None and _content(validation) & _content(task.train):
        raise InputError(f"{path}: some validation cases are training cases too; take them out of X_val")
    return TransferTask(task, validation)


def _read_validation(path: Path) -> Cases | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if "X_val" not in file.files:
                return None
            series, labels = file["X_val"], file["y_val"]
    except (KeyError, zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} holds no validation split that can be read ({error})") from error
    if series.ndim not in (2, 3) or labels.shape != (len(series),):
        raise InputError(f"{path}: X_val {series.shape} and y_val {labels.shape} should be (cases, [channels,] time) and (cases,)")
    return Cases([clean_series(one, name=f"case {i} of {path} (val)") for i, one in enumerate(series)], labels.astype(str))


def _content(cases: Cases) -> set[bytes]:
    return {one.tobytes() for one in cases.series}
