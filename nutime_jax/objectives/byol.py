"""BYOL: the loss, the momentum schedule and the moving average of the target (Grill et al., 2020; paper section 3.4)."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Tree = TypeVar("Tree")


def normalise(x: Float[Array, "*batch dim"], *, eps: float = 1e-12) -> Float[Array, "*batch dim"]:
    """Scales the last axis to Euclidean length one; a zero vector stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), eps**2))


def byol_loss(predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"]) -> Float[Array, ""]:
    """Symmetric regression of each view's target from the other view's prediction.

    The squared error of L2-normalised vectors, averaged over the batch *and the dimensions* as the release does
    (1/dim of the paper's 2 - 2 cos), summed over the two directions.

    Args:
        predictions: predictor outputs of the online network, shape (batch, views, dim).
        targets: projections of the target network, same shape; constants to the gradient.
    """
    targets = jax.lax.stop_gradient(normalise(targets))
    return 2 * jnp.square(normalise(predictions) - targets[:, ::-1]).mean()


def momentum_schedule(step: Int[Array, ""] | int, *, steps: int, base: float) -> Float[Array, ""]:
    """Momentum of the target's moving average: from `base` at step 0 to 1 at `steps`, along half a cosine."""
    return 1 - (1 - base) * (jnp.cos(jnp.pi * jnp.minimum(step, steps) / steps) + 1) / 2


def update_target(target: Tree, online: Tree, momentum: Float[Array, ""] | float) -> Tree:
    """Exponential moving average, leaf by leaf: momentum * target + (1 - momentum) * online."""
    return jax.tree.map(lambda t, o: (momentum * t + (1 - momentum) * o).astype(t.dtype), target, online)


def projection_spread(projections: Float[Array, "batch 2 dim"]) -> Float[Array, ""]:
    """The collapse alarm: standard deviation of normalised projections over the batch, averaged over dimensions.

    Scaled by sqrt(dim): 1 for directions spread evenly over the sphere, 0 when all series are projected to one point.
    """
    spread = normalise(projections).std(0).mean()
    return spread * jnp.sqrt(projections.shape[-1]).astype(spread.dtype)
