"""Pretraining objectives by name. The table is open: add an entry from any file."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.config import ObjectiveConfig
from nutime_jax.errors import InputError
from nutime_jax.models.heads import SiameseNetwork
from nutime_jax.models.microbatches import FULL_BATCH, Microbatches
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.objectives.byol import byol_loss, simsiam_loss
from nutime_jax.objectives.contrastive import info_nce_loss, moco_loss
from nutime_jax.objectives.masked import build_masked_network, masked_loss


class Objective(NamedTuple):
    """Loss of a pretraining objective, and the network it needs.

    loss: (predictions, targets) -> scalar; both have the shape (batch, 2, output_dim), or that of `network`.
    predictor: whether a predictor follows the projector; without it the projections are the predictions.
    target: whether a target network, a moving average of the online network, computes the targets. Otherwise the online
        network does.
    network: (encoder, microbatches=) -> network whose outputs are `Outputs`; None is `SiameseNetwork`.
    contrastive: whether the loss compares the series of a batch. Such a batch cannot be divided by gradient accumulation.
    """

    loss: Callable[[Float[Array, "batch 2 *dims"], Float[Array, "batch 2 *dims"]], Float[Array, ""]]
    predictor: bool
    target: bool
    network: Callable[..., nn.Module] | None = None
    contrastive: bool = False


BYOL = Objective(byol_loss, predictor=True, target=True)


def _simclr(config: ObjectiveConfig) -> Objective:
    return Objective(partial(info_nce_loss, temperature=config.temperature), predictor=False, target=False, contrastive=True)


def _moco(config: ObjectiveConfig) -> Objective:
    return Objective(partial(moco_loss, temperature=config.temperature), predictor=True, target=True, contrastive=True)


def _masked(config: ObjectiveConfig) -> Objective:
    if not config.mask_ratio:
        raise InputError("objective.mask_ratio is 0, so no window is predicted; choose a ratio above 0, such as 0.5")
    network = partial(build_masked_network, mask_ratio=config.mask_ratio, mask_type=config.mask_type)
    return Objective(masked_loss, predictor=False, target=False, network=network)


OBJECTIVES: dict[str, Callable[[ObjectiveConfig], Objective]] = {
    "byol": lambda config: BYOL,
    "simclr": _simclr,
    "simsiam": lambda config: Objective(simsiam_loss, predictor=True, target=False),
    "moco": _moco,
    "masked": _masked,
}
"""Name -> function that makes the objective of the `objective` section."""


def make_objective(config: ObjectiveConfig) -> Objective:
    """Return the objective of the `objective` section.

    Raises:
        InputError: the objective is not registered, or a field does not fit it.
    """
    if config.kind not in OBJECTIVES:
        raise InputError(f"objective.kind is {config.kind!r}; choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[config.kind](config)


def build_network(encoder: NuTimeEncoder, config: ObjectiveConfig, *, microbatches: Microbatches = FULL_BATCH) -> nn.Module:
    """Return the network that pretraining optimises: the encoder and what the objective adds to it.

    Args:
        microbatches: how the encoder divides the views; see `models.microbatches.Microbatches`.

    Raises:
        InputError: the objective is not registered, or does not fit the encoder.
    """
    objective = make_objective(config)
    if objective.network is not None:
        return objective.network(encoder, microbatches=microbatches)
    return SiameseNetwork(
        encoder,
        hidden_dim=config.hidden_dim,
        output_dim=config.output_dim,
        predicts=objective.predictor,
        pooling=config.pooling,
        microbatches=microbatches,
    )
