"""What is fitted to the training data before the first step: the constants of a scalar encoder, such as the edges of its bins."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nutime_jax.config import PretrainConfig
from nutime_jax.core.windows import normalise_windows
from nutime_jax.distributed.mesh import replicated
from nutime_jax.models.scalar_encoders import DATA_FITTED_CONSTANTS, scalar_encoder_scope
from nutime_jax.training.input_pipeline import Feed, MakeViews
from nutime_jax.training.state import TrainState

SERIES = 4096
"""How many series are looked at, or as many as the run has steps for."""


def fit_scalars(state: TrainState, config: PretrainConfig, feed: Feed, mesh: Mesh) -> TrainState:
    """Return a new state with data-fitted constants (`models.scalar_encoders.DATA_FITTED_CONSTANTS`).

    They are fitted to the means and stds of what the first steps would see, under keys of no step; the same on every process.
    Without anything to fit the state is as it was, and no batch is read.

    Raises:
        InputError: nothing can be fitted to these data.
    """
    model = config.model
    if model.scalar_encoder not in DATA_FITTED_CONSTANTS or model.window_stats == "none":
        return state
    values = np.concatenate(list(_scalars(config, feed, mesh)))
    fitted = DATA_FITTED_CONSTANTS[model.scalar_encoder](model, values)
    place_of = ("constants", "encoder", "embedding", scalar_encoder_scope(model.scalar_encoder))
    return state.replace(
        variables=_replaced(state.variables, place_of, fitted), target_variables=_replaced(state.target_variables, place_of, fitted)
    )


def _scalars(config: PretrainConfig, feed: Feed, mesh: Mesh) -> Iterator[np.ndarray]:
    """Means and stds of the views of one batch after another."""
    sizes = config.model.window_specs if config.model.window_stats == "window" else ((config.length, config.length),)
    statistics = jax.jit(_statistics, static_argnames=("views", "sizes"), out_shardings=replicated(mesh))
    unused = jax.random.fold_in(jax.random.key(config.seed), config.steps)  # keys of steps are folded in below that
    for number, batch in enumerate(islice(feed.batches(0), -(-SERIES // config.batch_size))):
        found = statistics(jax.random.fold_in(unused, number), batch, views=feed.views, sizes=sizes)
        yield np.asarray(found).ravel()


def _statistics(key: jax.Array, batch: Any, *, views: MakeViews, sizes: tuple[tuple[int, int], ...]) -> jax.Array:
    seen = views(key, batch)
    offset = jnp.broadcast_to(seen.offset[:, None], seen.values.shape[:-1])
    each = [normalise_windows(seen.values, window=size, stride=stride, offset=offset) for size, stride in sizes]
    return jnp.concatenate([part for windows in each for part in (windows.mean, windows.std)], axis=-1)


def _replaced(tree: Any, path: tuple[str, ...], values: Any) -> Any:
    """A tree in which the leaves of a branch have other values, in buffers of their own; one without the branch is as it was."""
    if not path:
        copy = {name: jax.jit(jnp.copy, out_shardings=tree[name].sharding) for name in values}
        return {**tree, **{name: copy[name](values[name]) for name in values}}
    return {**tree, path[0]: _replaced(tree[path[0]], path[1:], values)} if path[0] in tree else tree
