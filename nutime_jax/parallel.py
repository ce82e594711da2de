"""Where things live: one mesh axis over all devices, state replicated, batches split along it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nutime_jax.errors import InputError

DATA_AXIS = "data"


def make_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis, "data", over the first `devices` devices; None takes all there are."""
    if jax.process_count() > 1:
        raise InputError(f"this is one of {jax.process_count()} processes; run one process with all its devices")
    available = jax.devices()
    count = len(available) if devices is None else devices
    if not 0 < count <= len(available):
        raise InputError(f"{count} devices were asked for, {len(available)} are there")
    return jax.make_mesh((count,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=available[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from the rows that this process has read."""
    return {name: jax.make_array_from_process_local_data(split(mesh), rows) for name, rows in batch.items()}


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Raises InputError unless every device gets the same number of rows."""
    if batch_size % mesh.size:
        nearest = max(batch_size // mesh.size, 1) * mesh.size
        raise InputError(f"batch size {batch_size} is not divisible by {mesh.size} devices; {nearest} would be")
