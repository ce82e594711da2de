"""The objectives of self-supervised training, by name: which networks take part, and what is made small."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxtyping import Array, Float
from ml_collections import ConfigDict

from nutime_jax.errors import InputError
from nutime_jax.objectives.byol import byol_loss
from nutime_jax.objectives.contrast import contrastive_loss


class Objective(NamedTuple):
    """loss: (predictions, targets), both (batch, 2, dim), -> scalar.

    predictor: whether a predictor follows the projector; without one the projections are the predictions.
    target: whether targets are projections of a target network, a moving average of the online one; otherwise they are
        the online network's own.
    """

    loss: Callable[[Float[Array, "batch 2 dim"], Float[Array, "batch 2 dim"]], Float[Array, ""]]
    predictor: bool
    target: bool


BYOL = Objective(byol_loss, predictor=True, target=True)
KINDS: dict[str, Callable[[ConfigDict], Objective]] = {
    "byol": lambda config: BYOL,
    "simclr": lambda config: Objective(partial(contrastive_loss, temperature=config.temperature), predictor=False, target=False),
}
"""What makes an objective of the `objective` section of a configuration."""


def make_objective(config: ConfigDict) -> Objective:
    """The objective that the `objective` section of a configuration names.

    Raises:
        InputError: there is none of that name.
    """
    kind = config.get("kind", "byol")
    if kind not in KINDS:
        raise InputError(f"objective.kind is {kind!r}; choose one of {', '.join(KINDS)}")
    return KINDS[kind](config)
