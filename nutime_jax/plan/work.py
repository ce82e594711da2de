"""What a chip does in a step of a configuration: by compiling it for chips that are not here, or by analysis alone."""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from nutime_jax.config import PretrainConfig
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.errors import InputError
from nutime_jax.plan.chips import Topology
from nutime_jax.plan.hlo import Collective, count
from nutime_jax.plan.products import count_products
from nutime_jax.plan.roofline import UPDATE, Work, estimate, scale
from nutime_jax.plan.table import describe_plan
from nutime_jax.training.input_pipeline import CorpusSize, describe_batch, make_views
from nutime_jax.training.loop import check_config
from nutime_jax.training.program import build_program

# The library would ask which TPU it runs on, and shut out other users of it: there is no TPU.
NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
# Any name that it knows will do; without one it complains.
NO_TPU["TPU_ACCELERATOR_TYPE"] = "v5litepod-4"


def make_plan(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None, chips: Sequence[int] = ()) -> dict[str, Any]:
    """All numbers of a plan, see `table.describe_plan`.

    Args:
        size: of the corpus, if it is to be resident.
        chips: numbers of chips that are predicted besides, with the same rows a chip and with the same batch.

    Raises:
        InputError: see `find_work`.
    """
    work = find_work(config, topology, size=size)
    points = {}
    if chips:
        rows = config.batch_size / topology.chips
        model = {"rows": rows, "parameters": _count_parameters(config), "chips": chips}
        points[f"{rows:g} series a chip"] = scale(work, topology.chip, **model)
        points[f"{config.batch_size} series in all"] = scale(work, topology.chip, **model, batch=config.batch_size)
    return describe_plan(config, topology, work, estimate(work, topology), points)


def find_work(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None) -> Work:
    """Compiles the step for TPUs; for GPUs, whose compiler needs one, see `analyse_work`.

    Args:
        size: of the corpus, if it is to be resident.

    Raises:
        InputError: what no run could do, no compiler (libtpu), no such slice, or a step that does not fit its memory.
    """
    return (compile_work if topology.compiled else analyse_work)(config, topology, size=size)


def compile_work(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None) -> Work:
    """Lowers and compiles the training step for every device of a slice of TPUs; see `find_work`."""
    check_config(config)
    mesh = make_mesh(_devices(topology), fsdp=config.parallel.fsdp)
    program, batch = build_program(config, views=make_views(config), mesh=mesh), describe_batch(config, mesh, size=size)
    traced = program.step.trace(program.state, batch)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"batch size {config.batch_size} does not fit {topology.name} ({_sentence(error)}); "
            "choose a smaller batch, more chips, grad_accum_steps=4 or remat=full"
        ) from error
    return read_work(traced.jaxpr, compiled, chips=topology.chips)


def read_work(jaxpr: Any, compiled: Any, *, chips: int) -> Work:
    """What is known of a step that is compiled.

    The compiler counts the body of a loop once, and bytes that never leave the chip. Its FLOPs are multiplied as those of
    products are by their scans (nearly all of a step is in them), its bytes by what its text says, see `hlo.Counts`.
    """
    costs, memory, counts = compiled.cost_analysis(), compiled.memory_analysis(), count(compiled.as_text())
    products, once = count_products(jaxpr).flops, count_products(jaxpr, repeat=lambda length: 1).flops
    return Work(
        products={name: flops / chips for name, flops in products.items()},
        moved=costs["bytes accessed"] * counts.traffic,
        collectives=counts.collectives,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=costs["flops"] * sum(products.values()) / sum(once.values()),
        cycles=counts.cycles or None,
        unknown=counts.unknown,
    )


def analyse_work(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None) -> Work:
    """What a chip does at least: matrix products, what they read and write, the update, one reduction of the gradient.

    What else a step keeps and moves, its compiler alone knows.
    """
    check_config(config)
    mesh = make_mesh(1)
    parts = topology.chips * config.grad_accum_steps
    if config.batch_size % parts:
        times = f" times grad_accum_steps {config.grad_accum_steps}" if config.grad_accum_steps > 1 else ""
        nearest = max(config.batch_size // parts, 1) * parts
        raise InputError(f"batch size {config.batch_size} is not divisible by {topology.chips} chips{times}; {nearest} would be")
    if config.remat == "none" and not config.encoder_microbatch_size:
        # All views at once, as on GPUs: the mesh is that of a CPU.
        config = dataclasses.replace(config, encoder_microbatch_size=2 * config.batch_size)
    program, batch = build_program(config, views=make_views(config), mesh=mesh), describe_batch(config, mesh, size=size)
    products = count_products(program.step.trace(program.state, batch).jaxpr)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(program.state.params))
    return Work(
        products={name: flops / topology.chips for name, flops in products.flops.items()},
        moved=products.moved / topology.chips + UPDATE * parameters,
        collectives=(Collective("all-reduce", 4 * parameters, topology.chips, 1, "transpose(jvp())"),),
        arguments=_bytes(program.state) + _bytes(batch) / (1 if config.data.on_device else topology.chips),
    )


def _count_parameters(config: PretrainConfig) -> int:
    """Numbers that are trained."""
    state = build_program(config, views=make_views(config), mesh=make_mesh(1)).state
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def _devices(topology: Topology) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("the compiler for TPUs is not installed; pip install 'nutime_jax[tpu]' brings it, no TPU is needed")
    for name, value in NO_TPU.items():
        os.environ.setdefault(name, value)
    host = tuple(min(size, 2) for size in (*topology.shape[:2], 1))
    # Both cores of a chip are one device; where a chip has one, the library knows no such thing.
    cores = {"chip_config_name": "megacore"} if topology.chip.axes == 3 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, chips_per_host_bounds=host, **cores)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"topology {topology.name} is not made ({_sentence(error)}); choose another shape") from error
    return found.devices


def _sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ").removeprefix("INVALID_ARGUMENT: ").strip(" .")


def _bytes(tree: Any) -> float:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
