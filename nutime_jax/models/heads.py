"""What sits on an encoder: a classifier's linear layer, or the projector and predictor of self-supervised training."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.models.layers import BatchNorm, LayerNorm, Linear
from nutime_jax.models.microbatch import COLLECTIONS, map_microbatches
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.pooling import last_tokens, pool_tokens


class MLPHead(nn.Module):
    """Projector or predictor of BYOL: Linear (no bias), BatchNorm, ReLU, Linear; the release's hidden_dim is 4096, output_dim 256."""

    hidden_dim: int
    output_dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"], *, train: bool) -> Float[Array, "batch out"]:
        x = Linear(self.hidden_dim, use_bias=False, name="in")(x)
        x = jax.nn.relu(BatchNorm(name="norm")(x, train=train))
        return Linear(self.output_dim, name="out")(x)


class Classifier(nn.Module):
    """Encoder and a linear head on its feature: (batch, channels, time) -> logits (batch, classes).

    norm: what normalises the feature before the head: "none" (published), "batch" or "layer".
    channels: "fusion" (the encoder makes one token of a window's channels) or "independent" (each channel is encoded
        alone, and the features are averaged).
    pooling: see `models.pooling.pool_tokens`; "cls" is published.
    frozen: the encoder runs as it does in evaluation, without dropout.
    """

    encoder: NuTimeEncoder
    classes: int
    norm: Literal["none", "batch", "layer"] = "none"
    channels: Literal["fusion", "independent"] = "fusion"
    pooling: str = "cls"
    frozen: bool = False

    def setup(self):
        self.head = Linear(self.classes)
        if self.norm != "none":
            self.head_norm = BatchNorm() if self.norm == "batch" else LayerNorm()

    def __call__(
        self, x: Float[Array, "batch channels time"], offset: Float[Array, "batch channels"] | None = None, *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logits; `offset` as in `NuTimeEncoder`."""
        features = self.features(x, offset, train=train)
        if self.norm == "batch":
            features = self.head_norm(features, train=train)
        elif self.norm == "layer":
            features = self.head_norm(features)
        return self.head(features)

    def features(
        self, x: Float[Array, "batch channels time"], offset: Float[Array, "batch channels"] | None = None, *, train: bool = False
    ) -> Float[Array, "batch features"]:
        """One vector a case, before the head and its norm."""
        batch, channels, time = x.shape
        if self.channels == "independent":
            x = x.reshape(batch * channels, 1, time)
            offset = None if offset is None else offset.reshape(batch * channels, 1)
        encoding = self.encoder(x, offset, train=train and not self.frozen, last=last_tokens(self.pooling))
        features = pool_tokens(encoding, pooling=self.pooling)
        return features.reshape(batch, -1, features.shape[-1]).mean(1)


class Outputs(NamedTuple):
    """What the online network makes of two views of each series.

    projections: what must not collapse, (batch, 2, dim).
    predictions: what the loss compares with targets.
    targets: those it is compared with where there is no target network, of the same shape.
    """

    projections: Float[Array, "batch 2 dim"]
    predictions: Float[Array, "batch 2 *dims"]
    targets: Float[Array, "batch 2 *dims"]


class SiameseNetwork(nn.Module):
    """Encoder, projector and, if it predicts, predictor over two views of every series.

    The encoder sees both views as one batch. Projector and predictor see one view after the other, so that the
    statistics of their BatchNorm are per view, as in the release.

    pooling: what the projector sees, see `models.pooling.pool_tokens`; "cls" is published.
    microbatch_size: views that the encoder sees at a time, see `microbatch.map_microbatches`; None is all.
    """

    encoder: NuTimeEncoder
    hidden_dim: int
    output_dim: int
    predicts: bool = True
    pooling: str = "cls"
    microbatch_size: int | None = None

    def setup(self):
        self.projector = MLPHead(self.hidden_dim, self.output_dim)
        if self.predicts:
            self.predictor = MLPHead(self.hidden_dim, self.output_dim)

    def __call__(
        self, views: Float[Array, "batch 2 channels time"], offset: Float[Array, "batch channels"] | None = None, *, train: bool = False
    ) -> Outputs:
        """The online network: projections, which are the targets too, and what is predicted of them (themselves, if there is
        no predictor).

        `offset` is of both views, see `NuTimeEncoder`.
        """
        projections = self.project(views, offset, train=train)
        predictions = _per_view(self.predictor, projections, train=train) if self.predicts else projections
        return Outputs(projections, predictions, projections)

    def project(
        self, views: Float[Array, "batch 2 channels time"], offset: Float[Array, "batch channels"] | None = None, *, train: bool = False
    ) -> Float[Array, "batch 2 dim"]:
        """The target network: projections alone; needs no predictor weights."""
        batch, count, channels, time = views.shape
        offset = None if offset is None else jnp.repeat(offset, count, axis=0)
        encode = partial(_encode, train=train, pooling=self.pooling)
        features = map_microbatches(encode, self.encoder, views.reshape(-1, channels, time), offset, microbatch_size=self.microbatch_size)
        return _per_view(self.projector, features.reshape(batch, count, -1), train=train)


def encoder_part(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's variables, out of those of a network that holds one; not every encoder has constants."""
    return {name: variables[name]["encoder"] for name in COLLECTIONS if "encoder" in variables.get(name, {})}


def _encode(
    encoder: NuTimeEncoder,
    x: Float[Array, "batch channels time"],
    offset: Float[Array, "batch channels"] | None,
    *,
    train: bool,
    pooling: str,
) -> Float[Array, "batch features"]:
    return pool_tokens(encoder(x, offset, train=train, last=last_tokens(pooling)), pooling=pooling)


def _per_view(head: MLPHead, x: Float[Array, "batch 2 in"], *, train: bool) -> Float[Array, "batch 2 out"]:
    return jnp.stack([head(x[:, view], train=train) for view in range(x.shape[1])], axis=1)
