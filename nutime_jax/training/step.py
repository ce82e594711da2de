"""One update: loss, gradient, optimiser, moving average, metrics. They meet here and nowhere else."""

from collections.abc import Callable
from typing import Any

import jax

from nutime_jax.core.views import Views
from nutime_jax.errors import extra
from nutime_jax.models.heads import SiameseNetwork
from nutime_jax.objectives.byol import projection_spread, update_target
from nutime_jax.objectives.masked_network import MaskedNetwork
from nutime_jax.objectives.registry import BYOL, Objective
from nutime_jax.training.gradients import Differentiate, plain
from nutime_jax.training.state import TrainState

with extra("train"):
    import optax

Metrics = dict[str, jax.Array]


def make_train_step(
    network: SiameseNetwork | MaskedNetwork,
    tx: optax.GradientTransformation,
    *,
    augment: Callable[[jax.Array, Any], Views],
    momentum: Callable[[jax.Array], jax.Array],
    seed: int,
    objective: Objective = BYOL,
    differentiate: Differentiate = plain,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Builds the pure function (state, batch) -> (state, metrics).

    The target network, if the objective has one, moves after the update with the *next* step's momentum, which gives the
    sequence of the release, whose target moves at the start of a step before the targets are computed. It runs in training
    mode, dropout active, with running statistics of its own.

    Args:
        augment: (key, batch) -> two views of every series.
        momentum: step -> momentum of the moving average.
        seed: of views, masks and dropout; the keys of a step depend on the seed and the step alone.
        objective: what is made small; the network is one for it, see `train.state.build_network`, and the state has a target
            network where it asks for one.
        differentiate: how the gradient is taken, see `train.gradients`.
    """

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        view_key, online_key, target_key = jax.random.split(key, 3)
        views = augment(view_key, batch)
        apply = {"train": True, "mutable": ["batch_stats"]}

        def loss_fn(params, views, keys):
            online_key, target_key = keys
            online = {"params": params, **state.variables}
            outputs, updated = network.apply(online, *views, rngs={"dropout": online_key}, **apply)
            targets, target_updated = outputs.targets, {}
            if objective.target:
                target = {"params": state.target_params, **state.target_variables}
                targets, target_updated = network.apply(target, *views, method="project", rngs={"dropout": target_key}, **apply)
            return objective.loss(outputs.predictions, targets), (projection_spread(outputs.projections), updated, target_updated)

        (loss, aux), grads = differentiate(loss_fn)(state.params, views, (online_key, target_key))
        spread, updated, target_updated = aux
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        online = {name: params[name] for name in state.target_params}
        next_momentum = momentum(state.step + 1)
        metrics = {"loss": loss, "projection_std": spread, "grad_norm": optax.tree.norm(grads), "momentum": next_momentum}
        state = TrainState(
            step=state.step + 1,
            params=params,
            variables={**state.variables, **updated},
            target_params=update_target(state.target_params, online, next_momentum),
            target_variables={**state.target_variables, **target_updated},
            opt_state=opt_state,
        )
        return state, metrics

    return train_step
