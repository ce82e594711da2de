"""Heads on an encoder: linear classifier; projector and predictor of self-supervised training."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.models.layers import BatchNorm, LayerNorm, Linear, at_least_float32
from nutime_jax.models.microbatches import COLLECTIONS, FULL_BATCH, Microbatches, map_microbatches
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.pooling import pool_tokens, required_output_tokens


class MLPHead(nn.Module):
    """Projector or predictor of BYOL: Linear (no bias), BatchNorm, ReLU, Linear. Official defaults: 4096 and 256.

    dtype: see `layers.Linear`. The output is float32.
    """

    hidden_dim: int
    output_dim: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch views in"], *, train: bool) -> Float[Array, "batch views out"]:
        x = Linear(self.hidden_dim, use_bias=False, dtype=self.dtype, name="in")(x)
        x = Linear(self.output_dim, dtype=self.dtype, name="out")(jax.nn.relu(BatchNorm(name="norm")(x, train=train)))
        return x.astype(at_least_float32(x))


class Classifier(nn.Module):
    """Encoder with a linear head: (batch, channels, time) -> logits (batch, classes).

    norm: normalisation of the features before the head: "none" (paper default), "batch" or "layer".
    channels: "fusion" (one token per window for all channels), "independent" (channels are encoded separately and their
        features averaged) or "concat" (encoded separately, features concatenated).
    pooling: see `pooling.pool_tokens`; "cls" is the paper default.
    frozen: whether the encoder runs without dropout in training.
    """

    encoder: NuTimeEncoder
    classes: int
    norm: Literal["none", "batch", "layer"] = "none"
    channels: Literal["fusion", "independent", "concat"] = "fusion"
    pooling: str = "cls"
    frozen: bool = False

    def setup(self):
        self.head = Linear(self.classes)
        if self.norm != "none":
            self.head_norm = BatchNorm() if self.norm == "batch" else LayerNorm()

    def __call__(
        self,
        x: Float[Array, "batch channels time"],
        offset: Float[Array, "batch channels"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "batch classes"]:
        """Return logits; `offset` as in `NuTimeEncoder`."""
        features = self.features(x, offset, train=train)
        if self.norm == "batch":
            features = self.head_norm(features, train=train)
        elif self.norm == "layer":
            features = self.head_norm(features)
        return self.head(features)

    def features(
        self,
        x: Float[Array, "batch channels time"],
        offset: Float[Array, "batch channels"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "batch features"]:
        """Return one feature vector per case, before the head and its norm."""
        batch, channels, time = x.shape
        if self.channels != "fusion":
            x = x.reshape(batch * channels, 1, time)
            offset = None if offset is None else offset.reshape(batch * channels, 1)
        features = _encode(self.encoder, x, offset, train=train and not self.frozen, pooling=self.pooling)
        features = features.reshape(batch, -1, features.shape[-1])
        return features.reshape(batch, -1) if self.channels == "concat" else features.mean(1)


class Outputs(NamedTuple):
    """Outputs of the online network for two views per series.

    projections: (batch, 2, dim); monitored for collapse.
    predictions: compared with the targets by the loss.
    targets: targets without a target network, of the same shape as predictions.
    """

    projections: Float[Array, "batch 2 dim"]
    predictions: Float[Array, "batch 2 *dims"]
    targets: Float[Array, "batch 2 *dims"]


class SiameseNetwork(nn.Module):
    """Encoder, projector and optional predictor over two views of each series.

    The encoder processes both views as one batch. BatchNorm statistics of projector and predictor are per view, as in the
    official implementation.

    hidden_dim, output_dim: widths of projector and predictor.
    predicts: whether a predictor follows the projector.
    pooling: input of the projector, see `pooling.pool_tokens`; "cls" is the paper default.
    microbatches: how the encoder divides the views, see `microbatches.map_microbatches`.
    """

    encoder: NuTimeEncoder
    hidden_dim: int
    output_dim: int
    predicts: bool = True
    pooling: str = "cls"
    microbatches: Microbatches = FULL_BATCH

    def setup(self):
        self.projector = MLPHead(self.hidden_dim, self.output_dim, self.encoder.dtype)
        if self.predicts:
            self.predictor = MLPHead(self.hidden_dim, self.output_dim, self.encoder.dtype)

    def __call__(
        self,
        views: Float[Array, "batch 2 channels time"],
        offset: Float[Array, "batch channels"] | None = None,
        *,
        train: bool = False,
    ) -> Outputs:
        """Return outputs of the online network; without a predictor, predictions are the projections.

        `offset` belongs to both views, see `NuTimeEncoder`.
        """
        projections = self.project(views, offset, train=train)
        predictions = self.predictor(projections, train=train) if self.predicts else projections
        return Outputs(projections, predictions, projections)

    def project(
        self,
        views: Float[Array, "batch 2 channels time"],
        offset: Float[Array, "batch channels"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "batch 2 dim"]:
        """Return the projections of the target network; needs no predictor weights."""
        batch, count, channels, time = views.shape
        offset = None if offset is None else jnp.repeat(offset, count, axis=0)
        encode = partial(_encode, train=train, pooling=self.pooling)
        views = views.reshape(-1, channels, time)
        features = map_microbatches(encode, self.encoder, views, offset, microbatches=self.microbatches)
        return self.projector(features.reshape(batch, count, -1), train=train)


def encoder_part(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the encoder in a network; an encoder may have no constants."""
    return {name: variables[name]["encoder"] for name in COLLECTIONS if "encoder" in variables.get(name, {})}


def _encode(
    encoder: NuTimeEncoder,
    x: Float[Array, "batch channels time"],
    offset: Float[Array, "batch channels"] | None,
    *,
    train: bool,
    pooling: str,
) -> Float[Array, "batch features"]:
    encoding = encoder(x, offset, train=train, num_output_tokens=required_output_tokens(pooling))
    return pool_tokens(encoding, pooling=pooling)
