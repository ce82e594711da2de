"""InfoNCE over both views of every series of the global batch (NT-Xent; Chen et al., 2020, "A simple framework", section 2.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nutime_jax.objectives.byol import normalise


def contrastive_loss(
    predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"], *, temperature: float
) -> Float[Array, ""]:
    """How hard it is to tell the other view of a series among all other views in the batch, in nats.

    Each view of each series is compared, by cosine, with all others but itself, 2 * batch - 1 of them; the cross entropy of
    the right one is averaged over views and series. Under jit on a global batch, negatives are those of all devices.

    Args:
        predictions, targets: shape (batch, views, dim); SimCLR gives the same projections as both.
        temperature: cosines are divided by it.
    """
    batch = len(predictions)
    # View after view: row i and row (i + batch) % (2 * batch) are the two views of a series.
    ours, theirs = (normalise(jnp.moveaxis(x, 1, 0).reshape(2 * batch, -1)) for x in (predictions, targets))
    cosines = jnp.matmul(ours, theirs.T, precision="highest") / temperature
    cosines = jnp.where(jnp.eye(2 * batch, dtype=bool), -jnp.inf, cosines)
    right = (ours * jnp.roll(theirs, batch, axis=0)).sum(-1) / temperature
    return (jax.nn.logsumexp(cosines, axis=-1) - right).mean()
