"""What sits on an encoder: a classifier's linear layer, or the projector and predictor of self-supervised training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.models.encoder import NuTimeEncoder, read_out
from nutime_jax.models.layers import BatchNorm, Linear


class MLPHead(nn.Module):
    """Projector or predictor of BYOL: Linear (no bias), BatchNorm, ReLU, Linear; the release's hidden is 4096, dim 256."""

    hidden: int
    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"], *, train: bool) -> Float[Array, "batch out"]:
        x = Linear(self.hidden, use_bias=False, name="in")(x)
        x = jax.nn.relu(BatchNorm(name="norm")(x, train=train))
        return Linear(self.dim, name="out")(x)


class Classifier(nn.Module):
    """Encoder and a linear head on its CLS feature: (batch, channels, time) -> logits (batch, classes)."""

    encoder: NuTimeEncoder
    classes: int

    def setup(self):
        self.head = Linear(self.classes)

    def __call__(self, x: Float[Array, "batch channels time"], *, train: bool = False) -> Float[Array, "batch classes"]:
        return self.head(read_out(self.encoder(x, train=train), readout="cls"))


class Outputs(NamedTuple):
    """What the online network makes of two views of each series, both (batch, 2, dim)."""

    projections: Float[Array, "batch 2 dim"]
    predictions: Float[Array, "batch 2 dim"]


class SiameseNetwork(nn.Module):
    """Encoder, projector and predictor over two views of every series.

    The encoder sees both views as one batch. Projector and predictor see one view after the other, so that the
    statistics of their BatchNorm are per view, as in the release.
    """

    encoder: NuTimeEncoder
    hidden: int
    dim: int

    def setup(self):
        self.projector = MLPHead(self.hidden, self.dim)
        self.predictor = MLPHead(self.hidden, self.dim)

    def __call__(
        self, views: Float[Array, "batch 2 channels time"], offset: Float[Array, "batch channels"] | None = None, *, train: bool = False
    ) -> Outputs:
        """The online network: projections, and their predictions; `offset` is of both views, see `NuTimeEncoder`."""
        projections = self.project(views, offset, train=train)
        return Outputs(projections, _per_view(self.predictor, projections, train=train))

    def project(
        self, views: Float[Array, "batch 2 channels time"], offset: Float[Array, "batch channels"] | None = None, *, train: bool = False
    ) -> Float[Array, "batch 2 dim"]:
        """The target network: projections alone; needs no predictor weights."""
        batch, count, channels, time = views.shape
        offset = None if offset is None else jnp.repeat(offset, count, axis=0)
        features = read_out(self.encoder(views.reshape(-1, channels, time), offset, train=train), readout="cls")
        return _per_view(self.projector, features.reshape(batch, count, -1), train=train)


def _per_view(head: MLPHead, x: Float[Array, "batch 2 in"], *, train: bool) -> Float[Array, "batch 2 out"]:
    return jnp.stack([head(x[:, view], train=train) for view in range(x.shape[1])], axis=1)
