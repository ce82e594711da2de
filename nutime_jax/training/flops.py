"""FLOPs of the matmuls of a program, and the share of the peak of its devices (MFU)."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nutime_jax.distributed.chips import Chip


class MatmulCost(NamedTuple):
    """Cost of the matmuls of all devices together. flops: by precision. bytes_accessed: of operands and results, without reuse."""

    flops: dict[str, float]
    bytes_accessed: float


def matmul_seconds(flops: Mapping[str, float], chip: Chip) -> float:
    """Return the seconds of matmuls at the peak of a chip. This, divided by the seconds of a step, is the MFU.

    Args:
        flops: FLOPs of one chip by precision, see `count_matmuls`.
    """
    return sum(count * chip.passes[precision] for precision, count in flops.items()) / chip.peak


def count_matmuls(jaxpr: Any, *, loops: bool = True) -> MatmulCost:
    """Count all matmuls of a program before it is partitioned; recomputed ones count again, unused ones do not.

    JAX's `cost_analysis` does not separate precisions, which differ up to six times in speed. All branches of a condition count.

    Args:
        loops: whether the body of a scan counts by its trip count, or once.
    """
    flops, bytes_accessed = Counter(), 0
    for eqn, times in _iter_matmuls(jaxpr, loops=loops):
        (contracting, _), _ = eqn.params["dimension_numbers"]
        terms = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracting)
        flops[_precision(eqn)] += times * 2 * terms * eqn.outvars[0].aval.size
        bytes_accessed += times * sum(var.aval.size * var.aval.dtype.itemsize for var in (*eqn.invars, *eqn.outvars))
    return MatmulCost(dict(flops), bytes_accessed)


def _iter_matmuls(jaxpr: Any, *, loops: bool, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Yield every matmul with its number of executions."""
    for eqn in _used_equations(jaxpr):
        if eqn.primitive.name == "dot_general":
            yield eqn, times
        trips = eqn.params["length"] if loops and eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _iter_matmuls(getattr(inner, "jaxpr", inner), loops=loops, times=times * trips)


def _used_equations(jaxpr: Any) -> list[Any]:
    """Return the equations that results depend on; compilers remove the others, such as gradients with respect to inputs."""
    wanted, used = {id(var) for var in jaxpr.outvars}, []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(id(var) in wanted for var in eqn.outvars):
            used.append(eqn)
            wanted |= {id(var) for var in eqn.invars}
    return used


def _precision(eqn: Any) -> str:
    if all(var.aval.dtype == jnp.bfloat16 for var in eqn.invars):
        return "bfloat16"
    precision = eqn.params["precision"]
    first = precision[0] if isinstance(precision, tuple) else precision
    return "default" if first is None else jax.lax.Precision(first).name.lower()
