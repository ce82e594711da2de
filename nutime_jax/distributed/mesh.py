"""Where things live: a mesh over the devices of all processes, the shardings of state and batch, and what moves between."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nutime_jax.errors import InputError

DATA_AXIS, FSDP_AXIS = "data", "fsdp"


def make_mesh(devices: int | Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """A mesh of two axes: "data", and "fsdp" over which parameters may be divided; batches are split over both.

    Args:
        devices: their number (the first so many), or themselves, of a slice that is not here, say; None takes all there
            are, those of the other processes included.
        fsdp: devices along the axis "fsdp"; must divide their number.
    """
    available = jax.devices() if devices is None or isinstance(devices, int) else list(devices)
    count = devices if isinstance(devices, int) else len(available)
    if not 0 < count <= len(available):
        raise InputError(f"{count} devices were asked for, {len(available)} are there")
    if count < len(available) and jax.process_count() > 1:
        raise InputError(f"{count} of {len(available)} devices were asked for; a run of several processes uses all of them")
    if fsdp < 1 or count % fsdp:
        raise InputError(f"parallel.fsdp is {fsdp}; choose a divisor of the number of devices, which is {count}")
    return _mesh(available[:count], fsdp)


def make_local_mesh() -> Mesh:
    """A mesh over the devices of this process alone, for work that other processes have no part in."""
    return _mesh(jax.local_devices(), 1)


def _mesh(devices: list, fsdp: int) -> Mesh:
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto,) * 2, devices=devices)


def default_microbatch_size(mesh: Mesh) -> int | None:
    """How many series an encoder best works on at a time: what 32 leave stays in the caches of a CPU (measured, see
    benchmarks/NOTES.md); accelerators take all there are, None."""
    return 32 if mesh.devices.flat[0].platform == "cpu" else None


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis divided over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def shard_by_rules(tree: Any, mesh: Mesh, rules: Sequence[str]) -> Any:
    """The sharding of every leaf: that of the first rule whose pattern is found in its path, replicated without one.

    A leaf whose axes cannot be divided evenly as a rule says is replicated.

    Args:
        tree: arrays, or their shapes.
        rules: "pattern=axes", for instance "kernel$=fsdp" or "qkv/kernel$=-/fsdp": a regular expression for the path of
            a leaf ("params/encoder/block_0/mlp/in/kernel"), and for each leading axis of it the name of a mesh axis, or "-".

    Raises:
        InputError: a rule that is no such thing.
    """
    table = [_parse_rule(rule) for rule in rules]

    def sharding(path, leaf) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((axes for pattern, axes in table if pattern.search(name)), ())
        shares = [mesh.shape[axis] if axis else 1 for axis in spec]
        fits = len(spec) <= len(leaf.shape) and not any(size % share for size, share in zip(leaf.shape, shares, strict=False))
        return NamedSharding(mesh, PartitionSpec(*spec) if fits else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _parse_rule(rule: str) -> tuple[re.Pattern, tuple[str | None, ...]]:
    pattern, equals, axes = rule.rpartition("=")
    spec = tuple(None if axis == "-" else axis for axis in axes.split("/"))
    if not equals or not set(spec) <= {DATA_AXIS, FSDP_AXIS, None}:
        raise InputError(f"parallel.rules has {rule!r}; write pattern=axes, axes {DATA_AXIS}, {FSDP_AXIS} or -, separated by /")
    try:
        return re.compile(pattern), spec
    except re.error as error:
        raise InputError(f"parallel.rules has {pattern!r}, which is no regular expression ({error})") from error


def check_divisible(batch_size: int, mesh: Mesh, *, parts: int = 1) -> None:
    """Raises InputError unless every device gets the same number of rows of each of `parts` parts of a batch."""
    unit = mesh.size * parts
    if batch_size % unit:
        nearest = max(batch_size // unit, 1) * unit
        what = f"{mesh.size} devices" + (f" times grad_accum_steps {parts}" if parts > 1 else "")
        raise InputError(f"batch size {batch_size} is not divisible by {what}; {nearest} would be")


def local_rows(count: int, mesh: Mesh) -> np.ndarray:
    """Which rows of a batch of `count` the devices of this process hold, in order."""
    slices = split(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[index] for index in slices]))


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from the rows that this process has read, see `local_rows`."""
    return {name: jax.make_array_from_process_local_data(split(mesh), rows) for name, rows in batch.items()}


def place(tree: Any, shardings: Any) -> Any:
    """Global arrays from whole ones that every process has alike."""

    def put(array, sharding):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree, shardings)


def fetch(tree: Any) -> Any:
    """Whole arrays, as NumPy's, on every process. All processes have to call it."""
    whole = jax.tree.map(lambda leaf: replicated(leaf.sharding.mesh), tree)
    return jax.tree.map(np.asarray, jax.device_get(jax.jit(lambda tree: tree, out_shardings=whole)(tree)))
