"""The network of masked-window reconstruction: an encoder, some of whose windows are masked, and a linear head."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from nutime_jax.core.masking import count_masked, masked_indices, sample_mask
from nutime_jax.core.windows import normalise_windows
from nutime_jax.models.heads import Outputs
from nutime_jax.models.layers import Linear
from nutime_jax.models.network import NuTimeEncoder, map_microbatches
from nutime_jax.objectives.masked import window_targets


class MaskedNetwork(nn.Module):
    """Encoder and linear head over series some windows of which are masked.

    A trained vector stands in the place of a masked window. From the encoder's token there the head predicts what
    `objectives.masked.window_targets` makes of the true window; of every channel, where there are several. Nothing asks
    anything of the CLS token: a probe reads the mean of the window tokens. The encoder's weights are those of any other
    objective; the vector and the head are not part of it.

    share, kind: which windows are masked, see `core.masking.sample_mask`.
    microbatch_size: series that the encoder sees at a time, see `network.map_microbatches`; None is all.
    """

    encoder: NuTimeEncoder
    share: float
    kind: str
    microbatch_size: int | None = None

    @nn.compact
    def __call__(
        self, views: Float[Array, "batch 2 channels time"], offset: Float[Array, "batch channels"] | None = None, *, train: bool = False
    ) -> Outputs:
        """Predictions and targets of the masked windows, (batch, 2, masked, channels, window + 2), in the order of time; as
        projections, the mean window tokens, (batch, 2, width).

        Both views of a series are series of their own. `offset` is of both, see `NuTimeEncoder`. Without `train` there is
        no dropout, and the same windows are masked in every call.
        """
        batch, count, channels, time = views.shape
        window = self.encoder.config.window_size
        series = views.reshape(-1, channels, time)
        offset = None if offset is None else jnp.repeat(offset, count, axis=0)
        truth = jnp.moveaxis(window_targets(normalise_windows(series, window=window, offset=offset)), 1, 2)

        windows = time // window
        key = self.make_rng("dropout") if train else jax.random.key(0)
        masked = sample_mask(key, len(series), windows, ratio=self.share, mask_type=self.kind)
        mask_embedding = self.param("mask_token", nn.initializers.normal(0.02), (self.encoder.config.width,))

        def encode(encoder, x, offset, masked):
            return encoder(x, offset, train=train, masked=masked, mask_embedding=mask_embedding).normalised[:, 1:]

        tokens = map_microbatches(encode, self.encoder, series, offset, masked, microbatch_size=self.microbatch_size)
        places = masked_indices(masked, count_masked(windows, self.share))
        found = Linear(channels * (window + 2), name="head")(_take(tokens, places))
        predictions = found.reshape(batch, count, -1, channels, window + 2)
        return Outputs(tokens.mean(1).reshape(batch, count, -1), predictions, _take(truth, places).reshape(predictions.shape))


def _take(x: Float[Array, "batch windows *rest"], places: Int[Array, "batch masked"]) -> Float[Array, "batch masked *rest"]:
    return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1)
