"""AdamW with warm-up and cosine decay, as the release trains."""

import jax
import optax

from nutime_jax.config import OptimConfig


def learning_rate(config: OptimConfig, *, steps: int) -> optax.Schedule:
    """Linear warm-up from `warmup_rate` to `rate`, then half a cosine down to `final_rate` at the last step.

    Args:
        steps: number of updates of the run, more than warmup_steps.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_rate if config.warmup_steps else config.rate,
        peak_value=config.rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.final_rate,
    )


def make_optimizer(config: OptimConfig, *, steps: int) -> optax.GradientTransformation:
    """AdamW; `decay` says which parameters decay: "all" (published) or "matrices" (no biases, norms or CLS token).

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
        mask=masks[config.decay],
    )


def _is_matrix(path: tuple, leaf: jax.Array) -> bool:
    """By name: the bias of the NME has two axes and is a bias all the same."""
    return path[-1].key in ("kernel", "weight")
