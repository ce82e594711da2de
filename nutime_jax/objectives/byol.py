"""BYOL: loss, momentum schedule and moving average of the target network (Grill et al., 2020; paper section 3.4).

SimSiam is BYOL without a target network (Chen & He, 2021, "Exploring simple Siamese representation learning").
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Tree = TypeVar("Tree")


def normalise(x: Float[Array, "*batch dim"], *, eps: float = 1e-12) -> Float[Array, "*batch dim"]:
    """Scale the last axis to Euclidean length 1. A zero vector stays zero and has a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), eps**2))


def byol_loss(predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"]) -> Float[Array, ""]:
    """Return the symmetric regression error of each view's target from the other view's prediction.

    The squared error of L2-normalised vectors is averaged over the batch *and the dimensions*, as in the official
    implementation (1/dim of the paper's 2 - 2 cos), and summed over the two directions.

    Args:
        predictions: predictor outputs of the online network, shape (batch, views, dim).
        targets: projections of the target network, same shape; no gradient flows into them.
    """
    targets = jax.lax.stop_gradient(normalise(targets))
    return 2 * jnp.square(normalise(predictions) - targets[:, ::-1]).mean()


def simsiam_loss(predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"]) -> Float[Array, ""]:
    """Return minus the cosine of each view's prediction with the other view's projection, averaged over views and series (SimSiam).

    From -1 to 1, as in the paper (half of either direction). It equals dim / 4 times `byol_loss`, minus 1.

    Args:
        predictions: predictor outputs, shape (batch, views, dim).
        targets: projections of the same network, same shape; no gradient flows into them, which prevents collapse.
    """
    targets = jax.lax.stop_gradient(normalise(targets))
    return -(normalise(predictions) * targets[:, ::-1]).sum(-1).mean()


def momentum_schedule(step: Int[Array, ""] | int, *, steps: int, base: float) -> Float[Array, ""]:
    """Return the momentum of the moving average: a cosine schedule from `base` at step 0 to 1 at `steps`."""
    return 1 - (1 - base) * (jnp.cos(jnp.pi * jnp.minimum(step, steps) / steps) + 1) / 2


def ema_update(target: Tree, online: Tree, momentum: Float[Array, ""] | float) -> Tree:
    """Return the exponential moving average, momentum * target + (1 - momentum) * online, per leaf."""
    return jax.tree.map(lambda t, o: (momentum * t + (1 - momentum) * o).astype(t.dtype), target, online)


def projection_std(projections: Float[Array, "batch 2 dim"]) -> Float[Array, ""]:
    """Return the std of L2-normalised projections over the batch, averaged over dimensions and multiplied by sqrt(dim).

    1 is uniform on the sphere, 0 is collapse.
    """
    std = normalise(projections).std(0).mean()
    return std * jnp.sqrt(projections.shape[-1]).astype(std.dtype)
