"""Masked-window reconstruction: hidden windows are predicted from those that are seen, shape, mean and standard deviation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nutime_jax.core.scalars import signed_log
from nutime_jax.core.windows import Windows


class Masking(NamedTuple):
    """Which windows are hidden, see `core.masking.sample_mask`."""

    share: float
    kind: str


def window_targets(windows: Windows) -> Float[Array, "*batch windows target"]:
    """What is predicted of a window: its normalised shape, then the signed logarithms of mean and std, (…, window + 2)."""
    return jnp.concatenate([windows.normalised, signed_log(jnp.stack([windows.mean, windows.std], -1))], axis=-1)


def masked_loss(predictions: Float[Array, "*batch target"], targets: Float[Array, "*batch target"]) -> Float[Array, ""]:
    """The error of the shapes plus that of the statistics, each averaged over all hidden windows.

    Shapes: the squared error, averaged over the points of a window; predicting zero costs (window - 1) / window, but for
    constant windows. Statistics: the squared error of the signed logarithms, averaged over mean and std; from a factor of
    e on it grows by 2 for each, no longer with the square, so that a few far series do not outweigh the rest.

    Args:
        predictions: shape (…, window + 2), for hidden windows alone.
        targets: see `window_targets`; constants to the gradient.
    """
    error = predictions - jax.lax.stop_gradient(targets)
    far = jnp.abs(error[..., -2:])
    near = jnp.minimum(far, 1)
    return jnp.square(error[..., :-2]).mean() + (near * (2 * far - near)).mean()
