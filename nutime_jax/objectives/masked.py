"""Masked-window reconstruction: shape, mean and std of masked windows are predicted from the other windows."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from nutime_jax.core.masking import count_masked, masked_indices, sample_mask
from nutime_jax.core.scalars import signed_log
from nutime_jax.core.windows import Windows, normalise_windows
from nutime_jax.errors import InputError
from nutime_jax.models.heads import Outputs
from nutime_jax.models.layers import Linear
from nutime_jax.models.microbatches import FULL_BATCH, Microbatches, map_microbatches
from nutime_jax.models.network import NuTimeEncoder


def window_targets(windows: Windows) -> Float[Array, "*batch windows target"]:
    """Return the target of each window: its normalised shape, then the signed logs of mean and std, (…, window + 2)."""
    return jnp.concatenate([windows.normalised, signed_log(jnp.stack([windows.mean, windows.std], -1))], axis=-1)


def masked_loss(predictions: Float[Array, "*batch target"], targets: Float[Array, "*batch target"]) -> Float[Array, ""]:
    """Return the error of the shapes plus that of the statistics, each averaged over all masked windows.

    Shapes: squared error, averaged over the time points of a window. Predicting zero costs (window - 1) / window, except
    for constant windows. Statistics: squared error of the signed logs, averaged over mean and std. From a factor of e on
    the error grows linearly, by 2 per factor of e, so that a few series with extreme statistics do not dominate.

    Args:
        predictions: shape (…, window + 2), of masked windows only.
        targets: see `window_targets`; no gradient flows into them.
    """
    error = predictions - jax.lax.stop_gradient(targets)
    distance = jnp.abs(error[..., -2:])
    clipped = jnp.minimum(distance, 1)
    return jnp.square(error[..., :-2]).mean() + (clipped * (2 * distance - clipped)).mean()


class MaskedNetwork(nn.Module):
    """Encoder and linear head over series with masked windows.

    A learned vector replaces each masked window. The head predicts the targets of the true window, of every channel,
    from the encoder's token at its position. The CLS token is not trained; a probe uses the mean of the window tokens.
    Vector and head are not part of the encoder.

    mask_ratio, mask_type: masked windows, see `core.masking`.
    microbatches: see `models.microbatches.map_microbatches`.
    """

    encoder: NuTimeEncoder
    mask_ratio: float
    mask_type: str
    microbatches: Microbatches = FULL_BATCH

    @nn.compact
    def __call__(
        self,
        views: Float[Array, "batch 2 channels time"],
        offset: Float[Array, "batch channels"] | None = None,
        *,
        train: bool = False,
    ) -> Outputs:
        """Return predictions and targets of the masked windows, (batch, 2, masked, channels, window + 2), in time order.

        The projections are the mean window tokens, (batch, 2, width). Without `train` dropout is off, and every call masks
        the same windows.

        Args:
            views: two views per series; each is encoded as a separate series.
            offset: value that is added to both views, see `NuTimeEncoder`.
        """
        batch, count, channels, time = views.shape
        window = self.encoder.config.window_size
        series = views.reshape(-1, channels, time)
        offset = None if offset is None else jnp.repeat(offset, count, axis=0)
        targets = jnp.moveaxis(window_targets(normalise_windows(series, window=window, offset=offset)), 1, 2)

        windows = time // window
        key = self.make_rng("dropout") if train else jax.random.key(0)
        mask = sample_mask(key, len(series), windows, ratio=self.mask_ratio, mask_type=self.mask_type)
        mask_token = self.param("mask_token", nn.initializers.normal(0.02), (self.encoder.config.width,))

        def encode(encoder, x, offset, mask):
            return encoder(x, offset, train=train, masked=mask, mask_embedding=mask_token).normalised[:, 1:]

        tokens = map_microbatches(encode, self.encoder, series, offset, mask, microbatches=self.microbatches)
        indices = masked_indices(mask, count_masked(windows, self.mask_ratio))
        outputs = Linear(channels * (window + 2), name="head")(_take(tokens, indices))
        predictions = outputs.reshape(batch, count, -1, channels, window + 2)
        return Outputs(tokens.mean(1).reshape(batch, count, -1), predictions, _take(targets, indices).reshape(predictions.shape))


def build_masked_network(encoder: NuTimeEncoder, *, mask_ratio: float, mask_type: str, microbatches: Microbatches) -> MaskedNetwork:
    """Return the network of masked-window reconstruction.

    Raises:
        InputError: the encoder masks windows itself, or its windows overlap.
    """
    model = encoder.config
    if model.mask_ratio:
        raise InputError(
            f"model.mask_ratio is {model.mask_ratio}, and objective.kind 'masked' masks windows itself "
            "(objective.mask_ratio); set model.mask_ratio to 0"
        )
    if model.extra_window_sizes or model.dense_stride or model.window_stride < model.window_size:
        raise InputError(
            "objective.kind is 'masked', and overlapping windows would reveal masked values; "
            "set model.stride and model.dense_stride to 0 and model.extra_window_sizes to ()"
        )
    return MaskedNetwork(encoder, mask_ratio, mask_type, microbatches=microbatches)


def _take(x: Float[Array, "batch windows *rest"], indices: Int[Array, "batch masked"]) -> Float[Array, "batch masked *rest"]:
    return jnp.take_along_axis(x, indices.reshape(*indices.shape, *[1] * (x.ndim - 2)), axis=1)
