"""The objectives of self-supervised training, by name: which networks take part, and what is made small."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxtyping import Array, Float

from nutime_jax.config import ObjectiveConfig
from nutime_jax.errors import InputError
from nutime_jax.objectives.byol import byol_loss
from nutime_jax.objectives.info_nce import contrastive_loss
from nutime_jax.objectives.masked import Masking, masked_loss
from nutime_jax.objectives.moco import moco_loss
from nutime_jax.objectives.simsiam import simsiam_loss


class Objective(NamedTuple):
    """loss: (predictions, targets), both (batch, 2, dim) or, of hidden windows, (batch, 2, hidden, …), -> scalar.

    predictor: whether a predictor follows the projector; without one the projections are the predictions.
    target: whether targets are projections of a target network, a moving average of the online one; otherwise they are
        the online network's own.
    masking: which windows are hidden, where these are to be predicted (`MaskedNetwork`, which has neither projector nor
        predictor); None compares the two views of a series (`SiameseNetwork`).
    """

    loss: Callable[[Float[Array, "batch 2 *dims"], Float[Array, "batch 2 *dims"]], Float[Array, ""]]
    predictor: bool
    target: bool
    masking: Masking | None = None


def _masked(config: ObjectiveConfig) -> Objective:
    if not config.mask_ratio:
        raise InputError("objective.mask_ratio is 0, which leaves nothing to predict; choose a share of windows above 0, such as 0.5")
    return Objective(masked_loss, predictor=False, target=False, masking=Masking(config.mask_ratio, config.mask_type))


BYOL = Objective(byol_loss, predictor=True, target=True)
OBJECTIVES: dict[str, Callable[[ObjectiveConfig], Objective]] = {
    "byol": lambda config: BYOL,
    "simclr": lambda config: Objective(partial(contrastive_loss, temperature=config.temperature), predictor=False, target=False),
    "simsiam": lambda config: Objective(simsiam_loss, predictor=True, target=False),
    "moco": lambda config: Objective(partial(moco_loss, temperature=config.temperature), predictor=True, target=True),
    "masked": _masked,
}
"""What makes an objective of the `objective` section of a configuration."""


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that the `objective` section of a configuration names.

    Raises:
        InputError: there is none of that name, or it cannot be as it is set.
    """
    if config.kind not in OBJECTIVES:
        raise InputError(f"objective.kind is {config.kind!r}; choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[config.kind](config)
