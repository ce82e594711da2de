"""One update: loss, gradient, optimiser, moving average, metrics."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nutime_jax.core.views import Views
from nutime_jax.errors import extra
from nutime_jax.objectives import BYOL, Objective
from nutime_jax.objectives.byol import ema_update, projection_std
from nutime_jax.training.state import TrainState

with extra("train"):
    import optax

Metrics = dict[str, jax.Array]
LossFn = Callable[[Any, Any, Any], tuple[jax.Array, Any]]
"""(params, views, keys) -> (loss, auxiliary values)."""
GradientFn = Callable[[Any, Any, Any], tuple[tuple[jax.Array, Any], Any]]
"""(params, views, keys) -> ((loss, auxiliary values), gradient)."""


def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    views: Sequence[Callable[[jax.Array, Any], Views]],
    momentum: Callable[[jax.Array], jax.Array],
    seed: int,
    objective: Objective = BYOL,
    grad_accum_steps: int = 1,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Return the pure function (state, batch) -> (state, metrics).

    The target network, if the objective has one, moves after the update with the momentum of the *next* step. This gives
    the sequence of the official implementation, whose target moves at the start of a step, before the targets are
    computed. It runs in training mode, with dropout, and has its own running statistics.

    Args:
        network: network of the objective, see `objectives.build_network`.
        views: functions (key, batch) -> two views per series, used in turn: step i uses number i % len(views). They may
            return views of different lengths. All devices compute the same one.
        momentum: step -> momentum of the moving average.
        seed: of views, masks and dropout. The keys of a step depend only on the seed and the step.
        grad_accum_steps: number of microbatches, see `accumulate_gradients`.
    """
    apply = {"train": True, "mutable": ["batch_stats"]}

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        view_key, online_key, target_key = jax.random.split(key, 3)

        def loss_fn(params, views, keys):
            online_key, target_key = keys
            online = {"params": params, **state.variables}
            outputs, updated = network.apply(online, *views, rngs={"dropout": online_key}, **apply)
            targets, target_updated = outputs.targets, {}
            if objective.target:
                target = {"params": state.target_params, **state.target_variables}
                rngs = {"dropout": target_key}
                targets, target_updated = network.apply(target, *views, method="project", rngs=rngs, **apply)
            loss = objective.loss(outputs.predictions, targets)
            return loss, (projection_std(outputs.projections), updated, target_updated)

        gradient_fn = accumulate_gradients(loss_fn, grad_accum_steps)
        branches = [partial(_gradient_of_views, gradient_fn, make_views) for make_views in views]
        arguments = (state.params, batch, view_key, (online_key, target_key))
        # Gradients of a bfloat16 model are all-reduced in bfloat16. Summing 8 (32) partial sums so changes the encoder's gradient by
        # 0.4 (0.7) %; its backward pass in bfloat16 alone is 19.1 % off that in float32, and both together 19.1 (19.2) %.
        (loss, (std, updated, target_updated)), grads = jax.lax.switch(state.step % len(views), branches, *arguments)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        online = {name: params[name] for name in state.target_params}
        next_momentum = momentum(state.step + 1)
        metrics = {"loss": loss, "projection_std": std, "grad_norm": optax.tree.norm(grads), "momentum": next_momentum}
        state = TrainState(
            step=state.step + 1,
            params=params,
            variables={**state.variables, **updated},
            target_params=ema_update(state.target_params, online, next_momentum),
            target_variables={**state.target_variables, **target_updated},
            opt_state=opt_state,
        )
        return state, metrics

    return train_step


def _gradient_of_views(gradient_fn: GradientFn, make_views: Callable, params: Any, batch: Any, view_key: jax.Array, keys: Any) -> Any:
    return gradient_fn(params, make_views(view_key, batch), keys)


def accumulate_gradients(loss_fn: LossFn, num_microbatches: int) -> GradientFn:
    """Return a function that averages loss, auxiliary values and gradient over microbatches of equal size.

    BatchNorm normalises each microbatch by its own statistics, and its running statistics move once per step, by the
    mean over the microbatches. Results therefore differ from those of the full batch. Microbatch i has the rows i,
    i + num_microbatches, …: every device has its part of each, and no row moves.
    """
    compute = jax.value_and_grad(loss_fn, has_aux=True)
    if num_microbatches == 1:
        return compute

    def split_rows(leaf: jax.Array) -> jax.Array:
        return jnp.moveaxis(leaf.reshape(-1, num_microbatches, *leaf.shape[1:]), 1, 0)

    def accumulate(params, views, keys):
        keys = jax.tree.map(lambda key: jax.random.split(key, num_microbatches), keys)
        microbatches = (jax.tree.map(split_rows, views), keys)
        first = jax.tree.map(lambda leaf: leaf[0], microbatches)
        shapes = jax.eval_shape(compute, params, *first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def body(total, microbatch):
            return jax.tree.map(jnp.add, total, compute(params, *microbatch)), None

        total, _ = jax.lax.scan(body, zeros, microbatches)
        return jax.tree.map(lambda leaf: leaf / num_microbatches, total)

    return accumulate
