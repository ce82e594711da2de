"""Floating-point operations of the matrix products of a step: from its program, and from a formula."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from nutime_jax.models.encoder import build_encoder


class Products(NamedTuple):
    """Of all devices together. flops: by precision. moved: bytes that the products read and write, if nothing is shared."""

    flops: dict[str, float]
    moved: float


def count_products(jaxpr: Any, *, repeat: Callable[[int], int] = lambda length: length) -> Products:
    """All matrix products of a program before it is divided over devices.

    What is computed again counts again, and so do all branches of a condition.

    Args:
        repeat: length of a scan -> how often its body counts.
    """
    flops, moved = Counter(), 0
    for eqn, times in _products(jaxpr, repeat):
        (contracting, _), _ = eqn.params["dimension_numbers"]
        summed = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracting)
        flops[_precision(eqn.params["precision"])] += times * 2 * summed * eqn.outvars[0].aval.size
        moved += times * sum(one.aval.size * one.aval.dtype.itemsize for one in (*eqn.invars, *eqn.outvars))
    return Products(dict(flops), moved)


def _products(jaxpr: Any, repeat: Callable[[int], int], times: int = 1) -> Iterator[tuple[Any, int]]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn, times
        inner = times * (repeat(eqn.params["length"]) if eqn.primitive.name == "scan" else 1)
        values = [one for value in eqn.params.values() for one in (value if isinstance(value, (tuple, list)) else [value])]
        for one in values:
            if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                yield from _products(getattr(one, "jaxpr", one), repeat, inner)


def _precision(precision: Any) -> str:
    one = precision[0] if isinstance(precision, tuple) else precision
    return "default" if one is None else jax.lax.Precision(one).name.lower()


def products_by_formula(config: ConfigDict) -> float:
    """FLOPs of the matrix products of a step on the whole batch, without rematerialisation.

    The target network takes one forward pass; the online network takes one, and twice as much on the way back, but for
    the first layer, whose input needs no gradient.
    """
    encoder = build_encoder(config.model)
    width, inner = encoder.width, encoder.heads * encoder.head_dim
    windows = config.length // encoder.window
    tokens = windows + 1
    first = windows * encoder.window * width
    scalars = 0 if encoder.statistics == "none" else 2
    # Two products of (scales,) with (scales, dim) embed a scalar; a layer merges what comes of them with the shape.
    embedding = windows * (2 * scalars * len(encoder.scales) * encoder.scale_dim)
    embedding += windows * (width + scalars * encoder.scale_dim) * width if scalars else 0
    block = tokens * (4 * width * inner + 2 * width * encoder.mlp_dim) + 2 * tokens**2 * inner
    projector = width * config.objective.hidden + config.objective.hidden * config.objective.dim
    predictor = 2 * config.objective.dim * config.objective.hidden
    target = first + embedding + encoder.depth * block + projector
    online = 3 * (target + predictor) - first
    return 2.0 * 2 * config.batch_size * (target + online)
