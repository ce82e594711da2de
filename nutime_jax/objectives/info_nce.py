"""InfoNCE over both views of the global batch, NT-Xent (SimCLR: Chen et al., 2020, section 2.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nutime_jax.objectives.byol import normalise


def info_nce_loss(
    predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"], *, temperature: float
) -> Float[Array, ""]:
    """Return the cross entropy of finding the other view of a series among all other views of the batch, in nats.

    Each view is compared, by cosine, with the 2 * batch - 1 other views. Under jit on a global batch the negatives are
    those of all devices.

    Args:
        predictions, targets: shape (batch, views, dim); SimCLR passes the same projections as both.
        temperature: divisor of the cosines.
    """
    batch = len(predictions)
    # View after view: row i and row (i + batch) % (2 * batch) are the two views of a series.
    ours, theirs = (normalise(jnp.moveaxis(x, 1, 0).reshape(2 * batch, -1)) for x in (predictions, targets))
    cosines = jnp.matmul(ours, theirs.T, precision="highest") / temperature
    cosines = jnp.where(jnp.eye(2 * batch, dtype=bool), -jnp.inf, cosines)
    positives = (ours * jnp.roll(theirs, batch, axis=0)).sum(-1) / temperature
    return (jax.nn.logsumexp(cosines, axis=-1) - positives).mean()
