"""MoCo v3: the other view is told from other series by a momentum encoder (Chen, Xie & He, 2021, "An empirical study of
training self-supervised vision transformers")."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nutime_jax.objectives.byol import normalise


def moco_loss(predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"], *, temperature: float) -> Float[Array, ""]:
    """How badly a view's prediction tells the target of its series' other view from those of all series of the batch.

    InfoNCE in nats, times 2 * temperature as in the paper (so that the gradient depends less on it), summed over the two
    directions. The negatives of a prediction are the targets of the *other* view, batch - 1 of them; under jit on a global
    batch they are those of all devices.

    Args:
        predictions: predictor outputs of the online network, shape (batch, views, dim).
        targets: projections of the target network, same shape; constants to the gradient.
        temperature: cosines are divided by it; published: 0.2.
    """
    targets = jax.lax.stop_gradient(normalise(targets))[:, ::-1]
    predictions = normalise(predictions)
    cosines = jnp.einsum("ivd,jvd->vij", predictions, targets, precision="highest") / temperature
    right = (predictions * targets).sum(-1).T / temperature
    return 2 * temperature * (jax.nn.logsumexp(cosines, axis=-1) - right).mean(1).sum()
