"""Files of PyTorch states: read without executing code, written atomically.

`.safetensors` and `.npz` need no PyTorch. A `.pth` file is a pickle, which may contain code. PyTorch loads it with
`weights_only`, a restricted unpickler that builds only arrays; without PyTorch it is not opened.
"""

import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.data.formats import DAMAGE
from nutime_jax.errors import InputError
from nutime_jax.storage import check_regular, open_atomically

EMPTY: Mapping[str, Any] = MappingProxyType({})
MAX_FILE_BYTES = 1 << 34
WRAPPERS = ("state_dict", "model")
"""Keys of the state in a checkpoint."""


CONFIG = "official_config"
"""Key of the settings that a state does not show, in files of `write_state`."""


class TorchState(NamedTuple):
    """PyTorch names -> arrays, and official settings that the file states."""

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]


def read_state(path: str | os.PathLike) -> TorchState:
    """Read a file of PyTorch weights, without the prefix `module.` of DataParallel.

    Raises:
        InputError: the file cannot be read, has an unknown format, or contains anything but finite arrays.
    """
    path = Path(path).expanduser()
    if path.suffix not in READERS:
        raise InputError(f"{path} has an unknown suffix. Pass a file of weights: {', '.join(READERS)}.")
    try:
        check_regular(path, max_bytes=MAX_FILE_BYTES)
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}). Pass a file of weights.") from error
    state, config = READERS[path.suffix](path)
    if not state:
        raise InputError(f"{path} contains no arrays. Pass the checkpoint of a network.")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    for name, array in state.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"{name} in {path} has dtype {array.dtype}. Pass arrays of real numbers.")
        if not np.isfinite(array).all():
            raise InputError(f"{name} in {path} contains values that are not finite. Use another copy.")
    return TorchState(state, config)


def write_state(path: str | os.PathLike, state: Mapping[str, np.ndarray], config: Mapping[str, Any] = EMPTY) -> Path:
    """Write a state and official settings atomically, replacing an existing file.

    Raises:
        InputError: the suffix is not .safetensors, .pth or .pt, the file cannot be written, or PyTorch is not installed.
    """
    path = Path(path).expanduser().absolute()
    write = find_writer(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path, sync=True) as file:
            write(file, TorchState({name: np.asarray(array, order="C") for name, array in state.items()}, dict(config)))
    except OSError as error:
        raise InputError(f"Cannot write {path} ({error.strerror}). Choose another path.") from error
    return path


def find_writer(path: Path) -> Callable[[Any, TorchState], None]:
    """Return the writer for a path.

    Raises:
        InputError: the suffix is unknown, or PyTorch is not installed.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"{path} has an unknown suffix. Choose one of {', '.join(WRITERS)}.")
    if path.suffix != ".safetensors":
        _torch(path)
    return WRITERS[path.suffix]


def _read_safetensors(path: Path) -> TorchState:
    from safetensors import safe_open

    try:
        with safe_open(path, "np") as file:
            config = json.loads((file.metadata() or {}).get(CONFIG, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  the file is not a mapping
            return TorchState(arrays, config if isinstance(config, dict) else {})
    except Exception as error:  # several types: a corrupt file, or a dtype that NumPy lacks
        raise InputError(f"{path} is not a readable safetensors file ({error}). Use another copy, in float32.") from error


def _read_npz(path: Path) -> TorchState:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz file. Pass names and arrays.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return TorchState({name: file[name] for name in file.files}, {})
    except DAMAGE as error:
        raise InputError(f"{path} is corrupt, or contains objects, which are never opened ({error}). Use another copy.") from error


def _read_torch(path: Path) -> TorchState:
    torch = _torch(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # warns of pickles that PyTorch did not write
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can raise anything
        match = re.search(r"GLOBAL (\S+)", str(error))
        problem = f"contains {match[1]}, which is not an array" if match else f"is corrupt or not a checkpoint ({type(error).__name__})"
        raise InputError(f"{path} {problem}. No code in it was executed. Pass a file with a state_dict only.") from error
    config = loaded.get(CONFIG, {}) if isinstance(loaded, dict) and isinstance(loaded.get(CONFIG), dict) else {}
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, dict):
        raise InputError(f"{path} contains a {type(loaded).__name__}. Pass the checkpoint of a network.")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{name!r} in {path} is a {type(value).__name__}, not an array. Pass the checkpoint of a network.")
    return TorchState({name: _to_numpy(value, f"{name!r} in {path}", torch) for name, value in loaded.items()}, config)


def _to_numpy(tensor: Any, name: str, torch: Any) -> np.ndarray:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    # A view that repeats a few stored values would fill the memory.
    if not plain or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        kind = "a quantised" if tensor.is_quantized else f"a {tensor.device.type}, {tensor.layout}"
        raise InputError(f"{name} is {kind} or expanded tensor. Save it as an ordinary, dense tensor of the CPU.")
    tensor = tensor.detach()
    exact = tensor.dtype in (torch.float16, torch.float32, torch.float64) or not tensor.is_floating_point()
    return (tensor if exact else tensor.float()).numpy()


def _write_safetensors(file: Any, state: TorchState) -> None:
    from safetensors.numpy import save

    file.write(save(state.arrays, metadata={CONFIG: json.dumps(state.config)}))


def _write_torch(file: Any, state: TorchState) -> None:
    torch = _torch(file.name)
    torch.save({"state_dict": {name: torch.tensor(array) for name, array in state.arrays.items()}, CONFIG: state.config}, file)


def _torch(path: Any) -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path} is a pickle of PyTorch. Install PyTorch (pip install 'nutime_jax[torch]'), which loads it without executing "
            "code, or use .safetensors."
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
