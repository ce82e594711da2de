"""InfoNCE over the global batch: SimCLR (Chen et al., 2020, section 2.1) and MoCo v3 (Chen, Xie & He, 2021)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nutime_jax.objectives.byol import normalise


def info_nce_loss(
    predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"], *, temperature: float
) -> Float[Array, ""]:
    """Return the cross entropy of finding the other view of a series among all other views of the batch, in nats (NT-Xent of SimCLR).

    Each view is compared, by cosine, with the 2 * batch - 1 other views. Under jit on a global batch the negatives are
    those of all devices.

    Args:
        predictions, targets: shape (batch, views, dim); SimCLR passes the same projections as both.
        temperature: divisor of the cosines.
    """
    ours, theirs = normalise(predictions), normalise(targets)
    # The batch axis comes first: each device computes the rows of its own series against all views.
    cosines = jnp.einsum("ivd,wjd->ivwj", ours, jnp.moveaxis(theirs, 1, 0), precision="highest") / temperature
    same = jnp.eye(len(ours), dtype=bool)[:, None, None] & jnp.eye(ours.shape[1], dtype=bool)[None, :, :, None]
    positives = (ours * theirs[:, ::-1]).sum(-1) / temperature
    return (jax.nn.logsumexp(jnp.where(same, -jnp.inf, cosines), axis=(2, 3)) - positives).mean()


def moco_loss(predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"], *, temperature: float) -> Float[Array, ""]:
    """Return the cross entropy of finding the target of the other view among those of all series of the batch (MoCo v3).

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
