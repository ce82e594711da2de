"""The state of a run: exactly what a resume needs."""

from typing import Any

import flax
import jax
import jax.numpy as jnp

from nutime_jax.config import PretrainConfig
from nutime_jax.errors import InputError, extra
from nutime_jax.models.heads import SiameseNetwork, encoder_part
from nutime_jax.models.network import build_encoder
from nutime_jax.objectives.masked_network import MaskedNetwork
from nutime_jax.objectives.registry import make_objective

with extra("train"):
    import optax

UNTRAINED = ("batch_stats", "constants")


@flax.struct.dataclass
class TrainState:
    """step: updates done. variables: what is not trained (running statistics, tables of positions). The target network
    has no predictor; without one, its fields are empty."""

    step: Any
    params: Any
    variables: Any
    target_params: Any
    target_variables: Any
    opt_state: Any


def build_network(config: PretrainConfig, *, microbatch_size: int | None = None) -> SiameseNetwork | MaskedNetwork:
    """The network that a configuration describes.

    Args:
        microbatch_size: views that the encoder sees at a time; None is all.

    Raises:
        InputError: the scalar encoder or the objective is not registered, or the objective does not fit the model.
    """
    encoder = build_encoder(config.model, remat=config.remat)
    section, objective = config.objective, make_objective(config.objective)
    if objective.masking is not None:
        if config.model.mask_ratio:
            raise InputError(
                f"model.mask_ratio is {config.model.mask_ratio}, and the objective hides windows itself (objective.mask_ratio); set it to 0"
            )
        if config.model.extra_window_sizes or config.model.window_stride < config.model.window_size:
            raise InputError(
                "objective.kind is 'masked', and windows that overlap show what is hidden; set model.stride to 0 and leave "
                "model.extra_window_sizes empty"
            )
        return MaskedNetwork(encoder, *objective.masking, microbatch_size=microbatch_size)
    heads = {
        "hidden_dim": section.hidden_dim,
        "output_dim": section.output_dim,
        "predicts": objective.predictor,
        "pooling": section.pooling,
    }
    return SiameseNetwork(encoder, **heads, microbatch_size=microbatch_size)


def init_state(
    network: SiameseNetwork | MaskedNetwork, tx: optax.GradientTransformation, *, seed: int, length: int, target: bool = True
) -> TrainState:
    """Draws a fresh state.

    Args:
        seed: of the weights.
        length: points of a view.
        target: whether there is a target network.
    """
    variables = network.init(jax.random.key(seed), jnp.zeros((2, 2, 1, length)), train=False)
    state = state_from_variables(variables, tx)
    return state if target else state.replace(target_params={}, target_variables={})


def state_from_variables(variables: Any, tx: optax.GradientTransformation, target: Any = None) -> TrainState:
    """The state at step 0 for given variables; the target starts as a copy of the online network unless it is given."""
    target = variables if target is None else target
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        variables={name: variables.get(name, {}) for name in UNTRAINED},
        target_params=_copy(_without_predictor(target["params"])),
        target_variables=_copy({name: _without_predictor(target.get(name, {})) for name in UNTRAINED}),
        opt_state=tx.init(variables["params"]),
    )


def encoder_variables(state: Any) -> dict[str, Any]:
    """The online encoder's variables, out of a state or of a mapping with the same fields; it may have no constants."""
    fields = state if isinstance(state, dict) else vars(state)
    return encoder_part({"params": fields["params"], **fields["variables"]})


def _without_predictor(tree: Any) -> Any:
    return {name: leaf for name, leaf in tree.items() if name != "predictor"}


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.array, tree)
