"""SimSiam: BYOL without a target network (Chen & He, 2021, "Exploring simple Siamese representation learning")."""

import jax
from jaxtyping import Array, Float

from nutime_jax.objectives.byol import normalise


def simsiam_loss(predictions: Float[Array, "batch 2 dim"], targets: Float[Array, "batch 2 dim"]) -> Float[Array, ""]:
    """Return minus the cosine of each view's prediction with the other view's projection, averaged over views and series.

    From -1 to 1, as in the paper (half of either direction). It equals dim / 4 times `byol_loss`, minus 1.

    Args:
        predictions: predictor outputs, shape (batch, views, dim).
        targets: projections of the same network, same shape; no gradient flows into them, which prevents collapse.
    """
    targets = jax.lax.stop_gradient(normalise(targets))
    return -(normalise(predictions) * targets[:, ::-1]).sum(-1).mean()
