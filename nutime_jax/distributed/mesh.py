"""Device mesh, shardings, and transfers between host and devices."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nutime_jax.errors import InputError

DATA_AXIS, FSDP_AXIS = "data", "fsdp"


def make_mesh(devices: int | Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """Return a mesh with the axes "data" and "fsdp". Batches are sharded over both, parameters over "fsdp".

    Devices of several slices (TPU) or nodes (GPU) are joined along "data": parameters are gathered within a slice only.

    Args:
        devices: number of devices, or devices (also of a topology for ahead-of-time compilation); None is all devices
            of all processes.
        fsdp: size of the axis "fsdp"; divides the number of devices.

    Raises:
        InputError: the number of devices is not available, or fsdp does not divide it.
    """
    available = jax.devices() if devices is None or isinstance(devices, int) else list(devices)
    count = devices if isinstance(devices, int) else len(available)
    if not 0 < count <= len(available):
        raise InputError(f"{count} devices are requested; choose 1 to {len(available)}")
    if count < len(available) and jax.process_count() > 1:
        raise InputError(f"{count} of {len(available)} devices are requested; a run of several processes uses all of them")
    sizes = {len(devices) for devices in _by_slice(available[:count])}
    if len(sizes) > 1:
        raise InputError(f"slices have {' and '.join(map(str, sorted(sizes)))} devices; use slices of equal size")
    (size,) = sizes
    if fsdp < 1 or size % fsdp:
        of = "devices" if size == count else "devices of a slice"
        raise InputError(f"parallel.fsdp is {fsdp}; choose a divisor of the number of {of}, which is {size}")
    return _mesh(available[:count], fsdp)


def make_local_mesh() -> Mesh:
    """Return a mesh over the devices of this process, for work without the other processes."""
    return _mesh(jax.local_devices(), 1)


def _mesh(devices: list, fsdp: int) -> Mesh:
    # Physical axes are split where needed: without it, only v5e has an axis "fsdp" shorter than that of the slice.
    slices = [
        mesh_utils.create_device_mesh((len(devices) // fsdp, fsdp), devices, allow_split_physical_axes=True)
        for devices in _by_slice(devices)
    ]
    return Mesh(np.concatenate(slices), (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto,) * 2)


def _by_slice(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Return the devices of each slice; devices of one slice, and CPUs, have no `slice_index`."""
    indices = [getattr(device, "slice_index", 0) for device in devices]
    return [[device for device, i in zip(devices, indices, strict=True) if i == index] for index in sorted(set(indices))]


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding with a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def infer_shardings(tree: Any, mesh: Mesh, rules: Sequence[str]) -> Any:
    """Return the sharding of every leaf: that of the first matching rule, otherwise replicated.

    A leaf whose axes are not divisible as its rule requires is replicated.

    Args:
        tree: arrays, or their shapes.
        rules: "pattern=axes", such as "kernel$=fsdp" or "qkv/kernel$=-/fsdp": a regular expression for the path of a
            leaf ("params/encoder/block_0/mlp/in/kernel"), and the mesh axis of each leading axis of the leaf, "-" for none.

    Raises:
        InputError: a rule has another form.
    """
    table = [_parse_rule(rule) for rule in rules]

    def sharding(path, leaf) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((axes for pattern, axes in table if pattern.search(name)), ())
        parts = [mesh.shape[axis] if axis else 1 for axis in spec]
        fits = len(spec) <= len(leaf.shape) and not any(size % n for size, n in zip(leaf.shape, parts, strict=False))
        return NamedSharding(mesh, PartitionSpec(*spec) if fits else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _parse_rule(rule: str) -> tuple[re.Pattern, tuple[str | None, ...]]:
    pattern, equals, axes = rule.rpartition("=")
    spec = tuple(None if axis == "-" else axis for axis in axes.split("/"))
    if not equals or not set(spec) <= {DATA_AXIS, FSDP_AXIS, None}:
        accepted = f"write pattern=axes, axes {DATA_AXIS}, {FSDP_AXIS} or -, separated by /"
        raise InputError(f"parallel.rules has {rule!r}; {accepted}")
    try:
        return re.compile(pattern), spec
    except re.error as error:
        raise InputError(f"parallel.rules has {pattern!r}, which is not a regular expression ({error})") from error


def check_divisible(batch_size: int, mesh: Mesh, *, parts: int = 1) -> None:
    """Check that every device has the same number of rows of each of `parts` parts of a batch.

    Raises:
        InputError: the batch is not divisible.
    """
    unit = mesh.size * parts
    if batch_size % unit:
        nearest = max(batch_size // unit, 1) * unit
        divisor = f"{mesh.size} devices" + (f" times grad_accum_steps {parts}" if parts > 1 else "")
        raise InputError(f"batch size {batch_size} is not divisible by {divisor}; {nearest} would be")


def process_local_rows(count: int, mesh: Mesh) -> np.ndarray:
    """Return the indices of the rows, of a batch of `count`, on devices of this process, in order."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[index] for index in slices]))


def make_global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Return global arrays from the rows of this process, see `process_local_rows`."""
    return {name: jax.make_array_from_process_local_data(batch_sharding(mesh), rows) for name, rows in batch.items()}


def shard_tree(tree: Any, shardings: Any) -> Any:
    """Return global arrays from full arrays that are equal on every process."""

    def put(array, sharding):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree, shardings)


def gather_to_host(tree: Any) -> Any:
    """Return full NumPy arrays on every process. All processes must call it."""
    shardings = jax.tree.map(lambda leaf: replicated_sharding(leaf.sharding.mesh), tree)
    return jax.tree.map(np.asarray, jax.device_get(jax.jit(lambda tree: tree, out_shardings=shardings)(tree)))
