"""MoCo v3: InfoNCE against the projections of a target network (Chen, Xie & He, 2021)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nutime_jax.objectives.byol import normalise


def moco_loss(predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"], *, temperature: float) -> Float[Array, ""]:
    """Return the cross entropy of finding the target of the other view among those of all series of the batch.

    In nats, times 2 * temperature as in the paper (the gradient then depends less on the temperature), summed over the
    two directions. The negatives of a prediction are the batch - 1 other targets of the *other* view. Under jit on a
    global batch they are those of all devices.

    Args:
        predictions: predictor outputs of the online network, shape (batch, views, dim).
        targets: projections of the target network, same shape; no gradient flows into them.
        temperature: divisor of the cosines; paper: 0.2.
    """
    targets = jax.lax.stop_gradient(normalise(targets))[:, ::-1]
    predictions = normalise(predictions)
    cosines = jnp.einsum("ivd,jvd->vij", predictions, targets, precision="highest") / temperature
    positives = (predictions * targets).sum(-1).T / temperature
    return 2 * temperature * (jax.nn.logsumexp(cosines, axis=-1) - positives).mean(1).sum()
