"""Files of PyTorch states: names and arrays, read without executing anything, written atomically.

`.safetensors` and `.npz` need no PyTorch. A `.pth` is a pickle, which may hold a program: PyTorch opens it by
`weights_only`, which builds arrays and nothing else, and without PyTorch it is not opened at all.
"""

import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.storage import open_atomically

WRAPPERS = ("state_dict", "model")
"""Entries under which a checkpoint keeps its state."""


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The state in a file: PyTorch names -> arrays, without the `module.` that DataParallel puts in front.

    Raises:
        InputError: the file cannot be read, is of another kind, holds anything but arrays, or values that are not finite.
    """
    path = Path(path).expanduser()
    if path.suffix not in READERS:
        raise InputError(f"{path} is no file of weights that is known; give one of {', '.join(READERS)}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); give a file of weights") from error
    state = READERS[path.suffix](path)
    if not state:
        raise InputError(f"{path} holds no arrays; give the checkpoint of a network")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    for name, array in state.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"{name} in {path} holds {array.dtype} values; give arrays of real numbers")
        if not np.isfinite(array).all():
            raise InputError(f"{name} in {path} holds values that are not finite; use another copy")
    return state


def write_state(path: str | os.PathLike, state: Mapping[str, np.ndarray]) -> Path:
    """Writes a state beside its place and moves it there once it is whole; an older file is replaced.

    Raises:
        InputError: the file is of another kind than .safetensors and .pth, cannot be written, or PyTorch is missing.
    """
    path = Path(path).expanduser().absolute()
    write = find_writer(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path, sync=True) as file:
            write(file, {name: np.asarray(array, order="C") for name, array in state.items()})
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another place") from error
    return path


def find_writer(path: Path) -> Callable[[Any, dict[str, np.ndarray]], None]:
    """What writes a file of this name; known before anything is computed.

    Raises:
        InputError: nothing does.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"{path} has no suffix that tells how to write it; choose one of {', '.join(WRITERS)}")
    if path.suffix != ".safetensors":
        _torch(path)
    return WRITERS[path.suffix]


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except Exception as error:  # a damaged file, or a kind of number that NumPy lacks, under several names
        raise InputError(f"{path} is no safetensors file that can be read ({error}); use another copy, in float32") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no .npz file; give names and arrays")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged, or holds objects, which are never opened ({error}); use another copy") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that PyTorch did not write
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file provokes
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"holds {found[1]}, which is no array" if found else f"is damaged or no checkpoint ({type(error).__name__})"
        raise InputError(f"{path} {what}; nothing of it was run: give a file of a state_dict alone") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, dict):
        raise InputError(f"{path} holds a {type(loaded).__name__}; give the checkpoint of a network")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{name!r} in {path} is a {type(value).__name__} and no array; give the checkpoint of a network")
    return {name: _to_numpy(value, torch) for name, value in loaded.items()}


def _to_numpy(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _write_safetensors(file: Any, state: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    file.write(save(state))


def _write_torch(file: Any, state: dict[str, np.ndarray]) -> None:
    torch = _torch(file.name)
    torch.save({"state_dict": {name: torch.tensor(array) for name, array in state.items()}}, file)


def _torch(path: Any) -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path} is PyTorch's own kind of file, a pickle; install PyTorch (pip install 'nutime_jax[torch]'), which opens it "
            "without executing it, or use .safetensors"
        ) from error
    return torch


READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".ckpt": _read_torch,
    ".tar": _read_torch,
}
WRITERS = {".safetensors": _write_safetensors, ".pth": _write_torch, ".pt": _write_torch}
