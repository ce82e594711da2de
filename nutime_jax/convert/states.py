"""States of the official implementation: of which layout one is, and what its arrays tell by their names and shapes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nutime_jax.errors import InputError


def is_byol(mapping: Mapping[str, Any]) -> bool:
    """Whether a state is of BYOL: of an online and a target network."""
    return any(name.startswith("backbone.") for name in mapping)


def arrays_below(mapping: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in mapping.items() if name.startswith(prefix)}


def shape_of(arrays: Mapping[str, np.ndarray], name: str, *, axes: int = 2) -> tuple[int, ...]:
    """The shape of an array that tells settings."""
    if name not in arrays:
        raise InputError(f"the state has no {name}; pass the release's state_dict of a wne + wint model")
    if np.ndim(arrays[name]) != axes:
        raise InputError(f"{name} has shape {np.shape(arrays[name])} where {axes} axes are due; pass the release's state_dict")
    return np.shape(arrays[name])
