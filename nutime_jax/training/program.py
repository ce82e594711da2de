"""Compiled functions of a run: initial state and training step, sharded over a mesh. Training and `plan` share them."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from nutime_jax.config import OptimConfig, PretrainConfig
from nutime_jax.core.views import Views
from nutime_jax.distributed.mesh import batch_sharding, check_divisible, infer_shardings, replicated_sharding
from nutime_jax.errors import extra
from nutime_jax.models.microbatches import FULL_BATCH, Microbatches, default_microbatches
from nutime_jax.models.network import build_encoder
from nutime_jax.objectives import build_network, make_objective
from nutime_jax.objectives.byol import momentum_schedule
from nutime_jax.training.flops import count_matmuls
from nutime_jax.training.input_pipeline import MakeViews, make_views
from nutime_jax.training.state import TrainState, init_state
from nutime_jax.training.step import Metrics, make_train_step

with extra("train"):
    import optax


class Program(NamedTuple):
    """Functions of a run. Each is compiled at its first call.

    state: shapes, dtypes and shardings of the state.
    init: () -> initial state, created sharded. No two leaves share a buffer, so that all can be donated.
    step: (state, batch) -> (state, metrics); the given state is donated.
    """

    state: TrainState
    init: Callable[[], TrainState]
    step: Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def build_program(config: PretrainConfig, *, mesh: Mesh, views: Sequence[MakeViews] = (), platform: str | None = None) -> Program:
    """Return the functions of a run. Only this function takes the configuration apart into the sections of its parts.

    Args:
        views: functions (key, batch) -> two views per series, see `step.make_train_step`; empty is `input_pipeline.make_views`.
        platform: platform that attention is written for; None is that of the mesh.

    Raises:
        InputError: the batch is not divisible over the mesh, or a section does not fit another.
    """
    check_divisible(config.batch_size, mesh, parts=config.grad_accum_steps)
    encoder = build_encoder(
        config.model,
        remat=config.remat,
        platform=platform or mesh.devices.flat[0].platform,
        dtype=config.model.dtype,
        kernel_mesh=mesh if config.attention == "fused" else None,
    )
    network = build_network(encoder, config.objective, microbatches=_microbatches(config, mesh.devices.flat[0].platform, mesh.size))
    objective, optimizer = make_objective(config.objective), make_optimizer(config.optim, steps=config.steps)
    init = partial(init_state, network, optimizer, seed=config.seed, length=config.length, target=objective.target)
    step = make_train_step(
        network,
        optimizer,
        views=[partial(_shard_rows, view, batch_sharding(mesh)) for view in views or make_views(config)],
        momentum=partial(momentum_schedule, steps=config.steps, base=config.objective.momentum),
        seed=config.seed,
        objective=objective,
        grad_accum_steps=config.grad_accum_steps,
    )

    def train_step(state, batch):
        with jax.default_matmul_precision(config.matmul_precision):
            return step(state, batch)

    shapes = jax.eval_shape(init)
    shardings = infer_shardings(shapes, mesh, config.parallel.rules)
    return Program(
        state=jax.tree.map(_with_sharding, shapes, shardings),
        init=jax.jit(init, out_shardings=shardings),
        step=jax.jit(train_step, out_shardings=(shardings, replicated_sharding(mesh)), donate_argnums=0),
    )


def _microbatches(config: PretrainConfig, platform: str, devices: int) -> Microbatches:
    """Return the configured microbatches, or the default of the devices.

    There is none for blocks that already recompute, nor for the attention kernel, which needs no memory for the scores of a batch.
    """
    if config.encoder_microbatch_size:
        return Microbatches(config.encoder_microbatch_size)
    default = default_microbatches(platform, devices)
    needless = (default.recompute and config.remat != "none") or config.attention == "fused"
    return FULL_BATCH if needless else default


def _shard_rows(views: MakeViews, sharding: NamedSharding, key: jax.Array, batch: Any) -> Views:
    """Return views whose rows are sharded. Otherwise every device would compute all that are made of replicated arrays."""
    return jax.lax.with_sharding_constraint(views(key, batch), sharding)


def step_matmul_flops(config: PretrainConfig, *, mesh: Mesh, batch: Any) -> dict[str, float]:
    """Return the FLOPs of the matmuls of a step per device, by precision; see `flops.count_matmuls`.

    They are counted with attention for CPUs: those for TPUs multiply zeros as well. With views of several lengths they are
    the mean over the lengths.

    Args:
        batch: see `input_pipeline.abstract_batch`.
    """
    program = build_program(dataclasses.replace(config, attention="matmul"), mesh=mesh, platform="cpu")
    flops = count_matmuls(program.step.trace(program.state, batch).jaxpr).flops
    return {precision: count / mesh.size / len(config.training_lengths) for precision, count in flops.items()}


def learning_rate(config: OptimConfig, *, steps: int) -> optax.Schedule:
    """Return the schedule: linear warm-up from `warmup_lr` to `lr`, then cosine decay to `min_lr` at the last step.

    Args:
        steps: number of updates of the run, more than warmup_steps.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_lr if config.warmup_steps else config.lr,
        peak_value=config.lr,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.min_lr,
    )


def make_optimizer(config: OptimConfig, *, steps: int) -> optax.GradientTransformation:
    """Return AdamW with the schedule of `learning_rate`.

    Args:
        steps: number of updates of the run, more than warmup_steps.
    """
    masks = {"all": None, "matrices": lambda params: jax.tree_util.tree_map_with_path(_is_matrix, params)}
    return optax.adamw(
        learning_rate(config, steps=steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=masks[config.weight_decay_mask],
    )


def _is_matrix(path: tuple, leaf: jax.Array) -> bool:
    """Decide by name, because the bias of the NME has two axes."""
    return path[-1].key in ("kernel", "weight")


def _with_sharding(leaf: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
