"""State of a run, and its initial values."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from nutime_jax.config import ModelConfig
from nutime_jax.core.views import Views
from nutime_jax.core.windows import normalise_windows
from nutime_jax.distributed.mesh import replicated_sharding, shard_tree
from nutime_jax.errors import InputError, extra
from nutime_jax.models.heads import encoder_part
from nutime_jax.models.scalar_encoders import DATA_FITTED_CONSTANTS, scalar_encoder_scope

with extra("train"):
    import optax

NON_TRAINABLE_COLLECTIONS = ("batch_stats", "constants")


@flax.struct.dataclass
class TrainState:
    """Exactly what a resume needs.

    step: number of updates. variables: running statistics and constants. The target network has no predictor; the fields
    of a missing target network are empty.
    """

    step: Any
    params: Any
    variables: Any
    target_params: Any
    target_variables: Any
    opt_state: Any


def init_state(network: nn.Module, optimizer: optax.GradientTransformation, *, seed: int, length: int, target: bool = True) -> TrainState:
    """Return a randomly initialised state.

    Args:
        seed: of the weights.
        length: time points of a view.
        target: whether there is a target network.
    """
    variables = network.init(jax.random.key(seed), jnp.zeros((2, 2, 1, length)), train=False)
    state = state_from_variables(variables, optimizer)
    return state if target else state.replace(target_params={}, target_variables={})


def state_from_variables(variables: Any, optimizer: optax.GradientTransformation, target: Any = None) -> TrainState:
    """Return the state at step 0 of given variables. The target network starts as a copy unless `target` is given."""
    target = variables if target is None else target
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        variables={name: variables.get(name, {}) for name in NON_TRAINABLE_COLLECTIONS},
        target_params=_copy(_without_predictor(target["params"])),
        target_variables=_copy({name: _without_predictor(target.get(name, {})) for name in NON_TRAINABLE_COLLECTIONS}),
        opt_state=optimizer.init(variables["params"]),
    )


def encoder_variables(state: Any) -> dict[str, Any]:
    """Return the variables of the online encoder of a state, or of a mapping with the same fields."""
    fields = state if isinstance(state, dict) else vars(state)
    return encoder_part({"params": fields["params"], **fields["variables"]})


def replace_encoder(state: TrainState, encoder: Mapping[str, Any]) -> TrainState:
    """Return an initial state whose online and target encoders are copies of given variables; the heads stay.

    Args:
        encoder: variables of an `Encoder`. Its fusion of channels is not used: pretraining encodes channels alone.

    Raises:
        InputError: the encoder has other arrays than the network.
    """
    embedding = {name: leaf for name, leaf in encoder["params"]["embedding"].items() if not name.startswith("fusion")}
    parts = {**encoder, "params": {**encoder["params"], "embedding": embedding}}
    ours = encoder_variables(state)
    if jax.tree.map(np.shape, ours) != jax.tree.map(np.shape, parts):
        raise InputError("the encoder to start from has other arrays than the network; start from an encoder with the same model")

    def replace(collection: str, tree: Any) -> Any:
        if "encoder" not in tree:
            return tree
        copies = jax.tree.map(np.array, parts[collection])  # an array of JAX may share memory with one of NumPy
        return {**tree, "encoder": shard_tree(copies, jax.tree.map(lambda leaf: leaf.sharding, tree["encoder"]))}

    return state.replace(
        params=replace("params", state.params),
        variables={name: replace(name, tree) for name, tree in state.variables.items()},
        target_params=replace("params", state.target_params),
        target_variables={name: replace(name, tree) for name, tree in state.target_variables.items()},
    )


def init_from_data(
    state: TrainState,
    model: ModelConfig,
    batches: Iterable[Any],
    *,
    views: Callable[[jax.Array, Any], Views],
    length: int,
    key: jax.Array,
    mesh: Mesh,
) -> TrainState:
    """Return an initial state whose scalar encoder has constants fitted to data, such as the edges of bins.

    The constants (`models.scalar_encoders.DATA_FITTED_CONSTANTS`) are fitted to mean and std of the windows of views; they are equal on
    every process. A scalar encoder without such constants reads no batch.

    Args:
        batches: of the input pipeline.
        views: (key, batch) -> two views per series.
        length: time points of a view.
        key: differs from the keys of all steps.

    Raises:
        InputError: nothing can be fitted to these data.
    """
    if model.scalar_encoder not in DATA_FITTED_CONSTANTS or model.window_stats == "none":
        return state
    specs = model.window_specs if model.window_stats == "window" else ((length, length),)

    def window_stats(key: jax.Array, batch: Any) -> jax.Array:
        values, offset = views(key, batch)
        offset = jnp.broadcast_to(offset[:, None], values.shape[:-1])
        windows = [normalise_windows(values, window=size, stride=stride, offset=offset) for size, stride in specs]
        return jnp.concatenate([stats for found in windows for stats in (found.mean, found.std)], axis=-1)

    compute = jax.jit(window_stats, out_shardings=replicated_sharding(mesh))
    stats = [np.asarray(compute(jax.random.fold_in(key, i), batch)).ravel() for i, batch in enumerate(batches)]
    constants = DATA_FITTED_CONSTANTS[model.scalar_encoder](model, np.concatenate(stats))
    path = ("constants", "encoder", "embedding", scalar_encoder_scope(model.scalar_encoder))
    return state.replace(
        variables=_replace_leaves(state.variables, path, constants),
        target_variables=_replace_leaves(state.target_variables, path, constants),
    )


def _replace_leaves(tree: Any, path: tuple[str, ...], values: Any) -> Any:
    """Return a tree with new leaves, in new buffers, at a path; a tree without the path is unchanged."""
    if path:
        if path[0] not in tree:
            return tree
        return {**tree, path[0]: _replace_leaves(tree[path[0]], path[1:], values)}
    copies = {name: jax.jit(jnp.copy, out_shardings=tree[name].sharding)(value) for name, value in values.items()}
    return {**tree, **copies}


def _without_predictor(tree: Any) -> Any:
    return {name: leaf for name, leaf in tree.items() if name != "predictor"}


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.array, tree)
