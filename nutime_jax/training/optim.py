"""AdamW with warm-up and cosine decay, as the release trains."""

import jax

from nutime_jax.config import OptimConfig
from nutime_jax.errors import extra

with extra("train"):
    import optax


def learning_rate(config: OptimConfig, *, steps: int) -> optax.Schedule:
    """Linear warm-up from `warmup_lr` to `lr`, then half a cosine down to `min_lr` at the last step.

    Args:
        steps: number of updates of the run, more than warmup_steps.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_lr if config.warmup_steps else config.lr,
        peak_value=config.lr,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.min_lr,
    )


def make_optimizer(config: OptimConfig, *, steps: int) -> optax.GradientTransformation:
    """AdamW; `weight_decay_mask` says which parameters decay: "all" (published) or "matrices" (no biases, norms or CLS token).

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
        mask=masks[config.weight_decay_mask],
    )


def _is_matrix(path: tuple, leaf: jax.Array) -> bool:
    """By name: the bias of the NME has two axes and is a bias all the same."""
    return path[-1].key in ("kernel", "weight")
