"""The program of a configuration: its initial state and its step, compiled for a mesh; training and planning share it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from nutime_jax.config import PretrainConfig
from nutime_jax.distributed.mesh import check_divisible, default_microbatch_size, replicated, shard_by_rules
from nutime_jax.objectives.byol import momentum_schedule
from nutime_jax.objectives.registry import make_objective
from nutime_jax.training.gradients import accumulated, plain
from nutime_jax.training.input_pipeline import MakeViews
from nutime_jax.training.optim import make_optimizer
from nutime_jax.training.state import TrainState, build_network, init_state
from nutime_jax.training.step import Metrics, make_train_step


class Program(NamedTuple):
    """Nothing is computed until one of these is called.

    state: shapes, dtypes and shardings of the state.
    init: draws a fresh state, born where it belongs; no two leaves share a buffer, so that all can be donated.
    step: (state, batch) -> (state, metrics); the state that is given is used up.
    """

    state: TrainState
    init: Callable[[], TrainState]
    step: Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def build_program(config: PretrainConfig, *, views: MakeViews, mesh: Mesh) -> Program:
    """The program that a configuration describes.

    Args:
        views: what the step makes of its batch, see `train.feed`.

    Raises:
        InputError: a field that no program could do.
    """
    check_divisible(config.batch_size, mesh, parts=config.grad_accum_steps)
    network = build_network(config, microbatch_size=_microbatch_size(config, mesh))
    tx = make_optimizer(config.optim, steps=config.steps)
    objective = make_objective(config.objective)
    init = partial(init_state, network, tx, seed=config.seed, length=config.length, target=objective.target)
    shapes = jax.eval_shape(init)
    shardings = shard_by_rules(shapes, mesh, config.parallel.rules)
    state = jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings)
    step = make_train_step(
        network,
        tx,
        augment=views,
        momentum=partial(momentum_schedule, steps=config.steps, base=config.objective.momentum),
        seed=config.seed,
        objective=objective,
        differentiate=accumulated(plain, count=config.grad_accum_steps),
    )

    def train_step(state, batch):
        with jax.default_matmul_precision(config.matmul_precision):
            return step(state, batch)

    return Program(
        state,
        jax.jit(init, out_shardings=shardings),
        jax.jit(train_step, out_shardings=(shardings, replicated(mesh)), donate_argnums=0),
    )


def _microbatch_size(config: PretrainConfig, mesh: Mesh) -> int | None:
    """Views that the encoder sees at a time; what recomputes by itself (`remat`) is not divided besides."""
    return config.encoder_microbatch_size or (default_microbatch_size(mesh) if config.remat == "none" else None)
