"""Floating-point operations of the matrix products of a step: from its program, and from a formula."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nutime_jax.config import ModelConfig, PretrainConfig
from nutime_jax.core.masking import count_hidden
from nutime_jax.core.windows import count_windows
from nutime_jax.models.backbones import KERNELS
from nutime_jax.models.configuration import build_encoder
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.pooling import last_tokens
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS
from nutime_jax.objectives.registry import make_objective


class Products(NamedTuple):
    """Of all devices together. flops: by precision. moved: bytes that the products read and write, if nothing is shared."""

    flops: dict[str, float]
    moved: float


def count_products(jaxpr: Any, *, repeat: Callable[[int], int] = lambda length: length) -> Products:
    """All matrix products of a program before it is divided over devices.

    What is computed again counts again, and so do all branches of a condition; what is not used does not.

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
    for eqn in _used(jaxpr):
        if eqn.primitive.name == "dot_general":
            yield eqn, times
        inner = times * (repeat(eqn.params["length"]) if eqn.primitive.name == "scan" else 1)
        values = [one for value in eqn.params.values() for one in (value if isinstance(value, (tuple, list)) else [value])]
        for one in values:
            if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                yield from _products(getattr(one, "jaxpr", one), repeat, inner)


def _used(jaxpr: Any) -> list[Any]:
    """The operations that something comes of; compilers leave out the others, such as the gradient by what is given."""
    wanted, used = {id(var) for var in jaxpr.outvars}, []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(id(var) in wanted for var in eqn.outvars):
            used.append(eqn)
            wanted |= {id(var) for var in eqn.invars}
    return used


def _precision(precision: Any) -> str:
    one = precision[0] if isinstance(precision, tuple) else precision
    return "default" if one is None else jax.lax.Precision(one).name.lower()


def encoding_by_formula(encoder: NuTimeEncoder, *, length: int, last: int | None = None) -> float:
    """FLOPs of the matrix products that encode one series of one channel; `last` as in `NuTimeEncoder`."""
    return 2.0 * sum(_encoding(encoder, length=length, last=last))


COMPARED = {"simclr": 3 * 2, "moco": 2}
"""Products of a view with all series of the batch, of either view for SimCLR, there and back: targets have no way back."""


def products_by_formula(config: PretrainConfig) -> float:
    """FLOPs of the matrix products of a step on the whole batch, without what is computed again (remat, chunks).

    The target network, if there is one, takes one forward pass; the online network takes one, and twice as much on the
    way back, but for the first layer, whose input needs no gradient. Of the last block, only what is read is computed. A
    contrastive loss compares views with all others; masked windows have a linear head alone.
    """
    objective, section = make_objective(config.objective), config.objective
    encoder, model = build_encoder(config.model), config.model
    windows = encoder.count_tokens(config.length) - 1
    if objective.masking is not None:
        first, rest = _encoding(encoder, length=config.length, last=None)
        head = count_hidden(windows, objective.masking.share) * model.width * (model.window_size + 2)
        return 2.0 * 2 * config.batch_size * (3 * (first + rest + head) - first)
    dropped = count_hidden(windows, model.mask_ratio) if model.mask_ratio and model.mask_strategy == "drop" else 0
    first, rest = _encoding(encoder, length=config.length, last=last_tokens(section.pooling), dropped=dropped)
    projector = len(section.pooling.split("+")) * model.width * section.hidden_dim + section.hidden_dim * section.output_dim
    predictor = 2 * section.output_dim * section.hidden_dim
    once = first + rest + projector
    online = 3 * (once + predictor * objective.predictor) - first
    compared = COMPARED.get(section.kind, 0) * config.batch_size * section.output_dim
    return 2.0 * 2 * config.batch_size * (once * objective.target + online + compared)


@functools.cache
def _embedding_of_a_scalar(model: ModelConfig) -> tuple[float, float]:
    """Multiplications of layers whose input needs no gradient, and of all others, counted in the program of the module."""
    module, x = SCALAR_ENCODERS[model.scalar_encoder](model, None), jnp.ones(1)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    params, constants = variables.get("params", {}), {name: tree for name, tree in variables.items() if name != "params"}

    def embed(params, constants):
        return module.apply({"params": params, **constants}, x).sum()

    once, thrice = (
        sum(count_products(jax.make_jaxpr(fn)(params, constants)).flops.values()) / 2 for fn in (embed, jax.value_and_grad(embed))
    )
    outer = 3 * once - thrice
    return outer, once - outer


def _encoding(encoder: NuTimeEncoder, *, length: int, last: int | None, dropped: int = 0) -> tuple[float, float]:
    """Multiplications of the first layer, and of all that follow; blocks see `dropped` windows less."""
    model = encoder.config
    width, inner = model.width, model.num_heads * model.head_dim
    windows = encoder.count_tokens(length) - 1
    tokens = windows + 1 - dropped
    first = sum(count_windows(length, window=size, stride=step) * size for size, step in model.window_specs) * width
    scalars = 0 if model.window_stats == "none" else 2
    embedding = 0.0
    if scalars:
        outer, inside = _embedding_of_a_scalar(model)
        first += windows * scalars * outer
        # A layer merges what comes of them with the shape.
        embedding = windows * (scalars * inside + (width + scalars * model.scale_dim) * width)

    if model.backbone == "resnet":  # whose first token is the mean of the others
        return first, embedding + model.depth * windows * sum(KERNELS) * width**2

    def block(given: int) -> float:
        """Keys and values of all tokens; the rest for those that are given on."""
        return 2 * tokens * width * inner + given * (2 * width * inner + 2 * width * model.mlp_dim + 2 * tokens * inner)

    ends = block(tokens if last is None else last) if model.depth else 0
    return first, embedding + max(model.depth - 1, 0) * block(tokens) + ends
