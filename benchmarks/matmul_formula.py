"""FLOPs of the matmuls of a step and of an embedding by formula, to check what `nutime_jax.plan` counts in the program."""

import functools

import jax
import jax.numpy as jnp

from nutime_jax.config import ModelConfig, PretrainConfig
from nutime_jax.core.masking import count_masked
from nutime_jax.core.windows import count_windows
from nutime_jax.models.layers import KERNELS
from nutime_jax.models.network import NuTimeEncoder, build_encoder
from nutime_jax.models.pooling import required_output_tokens
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS
from nutime_jax.objectives import make_objective
from nutime_jax.training.flops import count_matmuls


def embedding_flops(encoder: NuTimeEncoder, *, length: int, last: int | None = None) -> float:
    """Return the FLOPs of the matmuls that encode one series of one channel; `last` as in `NuTimeEncoder`."""
    return 2.0 * sum(_encoding(encoder, length=length, last=last))


COMPARED = {"simclr": 3 * 2, "moco": 2}
"""Matmuls of a view with the batch, in forward and backward pass: SimCLR has two views of it, targets of MoCo no gradient."""


def step_flops(config: PretrainConfig) -> float:
    """Return the FLOPs of the matmuls of a step on the full batch, without recomputation (remat, encoder microbatches).

    The target network, if there is one, needs a forward pass. The online network needs a forward pass and a backward pass of
    twice the cost, except for the first layer, whose input needs no gradient. The last block computes only the output tokens.
    A contrastive loss compares each view with the batch. Masked reconstruction has only a linear head.
    """
    objective, section = make_objective(config.objective), config.objective
    encoder, model = build_encoder(config.model), config.model
    windows = encoder.count_tokens(config.length) - 1
    if objective.network is not None:
        first, rest = _encoding(encoder, length=config.length, last=None)
        head = count_masked(windows, config.objective.mask_ratio) * model.width * (model.window_size + 2)
        return 2.0 * 2 * config.batch_size * (3 * (first + rest + head) - first)
    dropped = count_masked(windows, model.mask_ratio) if model.mask_ratio and model.mask_strategy == "drop" else 0
    first, rest = _encoding(encoder, length=config.length, last=required_output_tokens(section.pooling), dropped=dropped)
    projector = len(section.pooling.split("+")) * model.width * section.hidden_dim + section.hidden_dim * section.output_dim
    predictor = 2 * section.output_dim * section.hidden_dim
    once = first + rest + projector
    online = 3 * (once + predictor * objective.predictor) - first
    compared = COMPARED.get(section.kind, 0) * config.batch_size * section.output_dim
    return 2.0 * 2 * config.batch_size * (once * objective.target + online + compared)


@functools.cache
def _scalar_encoder_multiplications(model: ModelConfig) -> tuple[float, float]:
    """Return the multiplications of layers whose input needs no gradient, and of all others, counted in the program."""
    module, x = SCALAR_ENCODERS[model.scalar_encoder](model, None), jnp.ones(1)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    params, constants = variables.get("params", {}), {name: tree for name, tree in variables.items() if name != "params"}

    def embed(params, constants):
        return module.apply({"params": params, **constants}, x).sum()

    once, thrice = (
        sum(count_matmuls(jax.make_jaxpr(fn)(params, constants)).flops.values()) / 2 for fn in (embed, jax.value_and_grad(embed))
    )
    outer = 3 * once - thrice
    return outer, once - outer


def _encoding(encoder: NuTimeEncoder, *, length: int, last: int | None, dropped: int = 0) -> tuple[float, float]:
    """Return the multiplications of the first layer, and of all others; blocks process `dropped` fewer windows."""
    model = encoder.config
    width, inner = model.width, model.num_heads * model.head_dim
    windows = encoder.count_tokens(length) - 1
    tokens = windows + 1 - dropped
    first = sum(count_windows(length, window=size, stride=step) * size for size, step in model.window_specs) * width
    scalars = 0 if model.window_stats == "none" else 2
    embedding = 0.0
    if scalars:
        outer, inside = _scalar_encoder_multiplications(model)
        first += windows * scalars * outer
        # A linear layer merges both embeddings with the shape.
        embedding = windows * (scalars * inside + (width + scalars * model.scale_dim) * width)

    if model.backbone == "resnet":  # its first token is the mean of the others
        return first, embedding + model.depth * windows * sum(KERNELS) * width**2

    def block(outputs: int) -> float:
        """Keys and values of all tokens, everything else for the output tokens."""
        return 2 * tokens * width * inner + outputs * (2 * width * inner + 2 * width * model.mlp_dim + 2 * tokens * inner)

    ends = block(tokens if last is None else last) if model.depth else 0
    return first, embedding + max(model.depth - 1, 0) * block(tokens) + ends
