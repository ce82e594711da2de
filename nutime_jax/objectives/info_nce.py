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
    ours, theirs = normalise(predictions), normalise(targets)
    # The batch axis comes first: each device computes the rows of its own series against all views.
    cosines = jnp.einsum("ivd,wjd->ivwj", ours, jnp.moveaxis(theirs, 1, 0), precision="highest") / temperature
    same = jnp.eye(len(ours), dtype=bool)[:, None, None] & jnp.eye(ours.shape[1], dtype=bool)[None, :, :, None]
    positives = (ours * theirs[:, ::-1]).sum(-1) / temperature
    return (jax.nn.logsumexp(jnp.where(same, -jnp.inf, cosines), axis=(2, 3)) - positives).mean()
