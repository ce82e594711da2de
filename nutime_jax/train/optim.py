"""AdamW with warm-up and cosine decay, as the release trains."""

import jax
import optax
from ml_collections import ConfigDict

from nutime_jax.errors import InputError


def learning_rate(config: ConfigDict, *, steps: int) -> optax.Schedule:
    """Linear warm-up from `warmup_rate` to `rate`, then half a cosine down to `final_rate` at the last step.

    Args:
        config: the `optim` section: rate, warmup_rate, final_rate, warmup_steps.
        steps: of the whole run.
    """
    if not 0 <= config.warmup_steps < steps:
        raise InputError(f"optim.warmup_steps is {config.warmup_steps}; choose 0 to {steps - 1} for a run of {steps} steps")
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_rate if config.warmup_steps else config.rate,
        peak_value=config.rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.final_rate,
    )


def make_optimizer(config: ConfigDict, *, steps: int) -> optax.GradientTransformation:
    """AdamW; `decay` says which parameters decay: "all" (published) or "matrices" (no biases, norms or CLS token).

    Args:
        config: the `optim` section: see `learning_rate`, and beta1, beta2, epsilon, weight_decay, decay.
        steps: of the whole run.
    """
    masks = {"all": None, "matrices": lambda params: jax.tree_util.tree_map_with_path(_is_matrix, params)}
    if config.decay not in masks:
        raise InputError(f"optim.decay is {config.decay!r}; choose one of {', '.join(masks)}")
    return optax.adamw(
        learning_rate(config, steps=steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=masks[config.decay],
    )


def _is_matrix(path: tuple, leaf: jax.Array) -> bool:
    """By name: the bias of the NME has two axes and is a bias all the same."""
    return path[-1].key in ("kernel", "weight")
