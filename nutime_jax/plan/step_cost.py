"""Cost of one training step per chip: compiled for TPUs that you do not have, analysed for GPUs."""

import dataclasses
import importlib.util
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from nutime_jax.config import PretrainConfig
from nutime_jax.distributed.chips import Topology
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.errors import InputError
from nutime_jax.plan.hlo import Collective, analyse_hlo
from nutime_jax.training.flops import count_matmuls
from nutime_jax.training.input_pipeline import CorpusSize, abstract_batch
from nutime_jax.training.loop import check_config
from nutime_jax.training.program import build_program, step_matmul_flops

UPDATE_BYTES = 36
"""Bytes per parameter that an update reads (parameter, gradient, two moments, target) and writes (all but the gradient)."""

# Without these, libtpu queries the TPU that it runs on and locks it. The accelerator type can be any that it knows.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


class StepCost(NamedTuple):
    """Cost of a step per chip. None is known to a compiler only.

    matmul_flops: FLOPs of matmuls by precision, without those on padding and zeros. bytes_accessed: bytes to and from HBM.
    collectives: see `hlo`.
    parameters: number of trained parameters.
    arguments, temporaries, code: bytes of HBM for state and batch, for temporary buffers, and for the executable.
    flops: all FLOPs. cycles: sum of the compiler's estimates of all operations.
    unknown_loops: loops that are counted as one trip, because their trip count is not known.
    """

    matmul_flops: dict[str, float]
    bytes_accessed: float
    collectives: tuple[Collective, ...]
    arguments: float
    parameters: int = 0
    temporaries: float | None = None
    code: float | None = None
    flops: float | None = None
    cycles: float | None = None
    unknown_loops: int = 0


def step_cost(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None) -> StepCost:
    """Return the cost of a step: compiled for TPUs, analysed for GPUs, whose compiler needs one.

    Args:
        size: size of a corpus in device memory; None is a streamed one.

    Raises:
        InputError: the configuration is invalid, libtpu is not installed, the slice does not exist, or the step does not fit.
    """
    check_config(config)
    return (compile_step if topology.compiled else analyse_step)(config, topology, size=size)


def compile_step(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None) -> StepCost:
    """Compile the training step for every device of a TPU slice; see `step_cost`."""
    mesh = make_mesh(tpu_devices(topology), fsdp=config.parallel.fsdp)
    program, batch = build_program(config, mesh=mesh), abstract_batch(config.data, mesh, batch_size=config.batch_size, size=size)
    traced = program.step.trace(program.state, batch)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"Batch size {config.batch_size} does not fit {topology.name} ({_first_line(error)}). "
            "Choose a smaller batch, more chips, grad_accum_steps=4 or remat=full."
        ) from error
    cost = read_cost(traced.jaxpr, compiled, chips=topology.chips)
    return cost._replace(matmul_flops=step_matmul_flops(config, mesh=mesh, batch=batch), parameters=_count_parameters(program.state))


def read_cost(jaxpr: Any, compiled: Any, *, chips: int) -> StepCost:
    """Return the cost of a compiled step.

    JAX counts the body of a loop once, and bytes that stay on the chip. FLOPs are corrected by the ratio of all matmuls to those
    counted once (matmuls are nearly all FLOPs), bytes by `HloCounts.hbm_ratio`.
    """
    costs, memory, counts = compiled.cost_analysis(), compiled.memory_analysis(), analyse_hlo(compiled.as_text())
    matmuls, counted_once = count_matmuls(jaxpr).flops, count_matmuls(jaxpr, loops=False).flops
    return StepCost(
        matmul_flops={precision: flops / chips for precision, flops in matmuls.items()},
        bytes_accessed=costs["bytes accessed"] * counts.hbm_ratio,
        collectives=counts.collectives,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=costs["flops"] * sum(matmuls.values()) / sum(counted_once.values()),
        cycles=counts.cycles or None,
        unknown_loops=counts.unknown_loops,
    )


def analyse_step(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None) -> StepCost:
    """Return a lower bound of the cost: matmuls, their operands and results, the update, and one all-reduce of the gradients."""
    parts = topology.chips * config.grad_accum_steps
    if config.batch_size % parts:
        times = f" times grad_accum_steps {config.grad_accum_steps}" if config.grad_accum_steps > 1 else ""
        nearest = max(config.batch_size // parts, 1) * parts
        raise InputError(f"batch_size {config.batch_size} is not divisible by {topology.chips} chips{times}. Choose {nearest}.")
    if config.remat == "none" and not config.encoder_microbatch_size:
        # The full batch, as on GPUs; the default of the mesh, which is that of a CPU, is smaller.
        config = dataclasses.replace(config, encoder_microbatch_size=2 * config.batch_size)
    mesh = make_mesh(1)
    program, batch = build_program(config, mesh=mesh), abstract_batch(config.data, mesh, batch_size=config.batch_size, size=size)
    matmuls = count_matmuls(program.step.trace(program.state, batch).jaxpr)
    parameters = _count_parameters(program.state)
    return StepCost(
        matmul_flops={precision: flops / topology.chips for precision, flops in matmuls.flops.items()},
        bytes_accessed=matmuls.bytes_accessed / topology.chips + UPDATE_BYTES * parameters,
        collectives=(Collective("all-reduce", 4 * parameters, topology.chips, 1, "transpose(jvp())"),),
        arguments=_tree_bytes(program.state) + _tree_bytes(batch) / (1 if "corpus" in batch else topology.chips),
        parameters=parameters,
    )


def tpu_devices(topology: Topology) -> list[jax.Device]:
    """Return the devices of a topology, which programs can be compiled for.

    Raises:
        InputError: libtpu is not installed, or the topology does not exist.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("The TPU compiler is not installed: pip install 'nutime_jax[tpu]'. It needs no TPU.")
    for name, value in NO_TPU.items():
        os.environ.setdefault(name, value)
    host, name = tuple(min(size, 2) for size in (*topology.shape[:2], 1)), topology.name.rpartition("*")[2]
    # On chips with two cores, both are one device; libtpu has no such setting for chips with one.
    options = {"chip_config_name": "megacore"} if topology.chip.axes == 3 else {}
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name, chips_per_host_bounds=host, **options)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"Topology {topology.name} does not exist ({_first_line(error)}). Choose another shape.") from error
    return description.devices


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ").removeprefix("INVALID_ARGUMENT: ").strip(" .")


def _count_parameters(state: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def _tree_bytes(tree: Any) -> float:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
