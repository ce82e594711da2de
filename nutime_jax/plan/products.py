"""Floating-point operations of the matrix products of a step: from its program, and from a formula."""

import math
from collections import Counter
from typing import Any

import jax
from ml_collections import ConfigDict

from nutime_jax.models.encoder import build_encoder


def count_products(jaxpr: Any) -> Counter:
    """FLOPs of all matrix products of a program before it is divided over devices, by their precision.

    The body of a scan counts as often as it runs, and what is computed again counts again.
    """
    total = Counter()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            total[_precision(eqn.params["precision"])] += _dot_flops(eqn)
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        inner = [count_products(one) for one in _jaxprs(eqn.params)]
        if eqn.primitive.name == "cond":
            inner = [max(inner, key=Counter.total)]
        for one in inner:
            total.update({name: times * flops for name, flops in one.items()})
    return total


def _dot_flops(eqn: Any) -> int:
    (contracting, _), _ = eqn.params["dimension_numbers"]
    summed = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracting)
    return 2 * summed * math.prod(eqn.outvars[0].aval.shape)


def _precision(precision: Any) -> str:
    one = precision[0] if isinstance(precision, tuple) else precision
    return "default" if one is None else jax.lax.Precision(one).name.lower()


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    values = [one for value in params.values() for one in (value if isinstance(value, (tuple, list)) else [value])]
    return [getattr(one, "jaxpr", one) for one in values if hasattr(one, "eqns") or hasattr(one, "jaxpr")]


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
