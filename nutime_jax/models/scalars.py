"""Encoders of a single number: what turns the mean and the std of a window into vectors."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from nutime_jax.nme import embed_scalar


class NME(nn.Module):
    """Numerically multi-scaled embedding with trained weights and biases, both drawn from U(-1, 1).

    scales: the magnitudes k_i, fixed (published: 1e-4 … 1e4).
    dim: width of the embedding.
    weighted: weigh the scales by the distance of the scalar's magnitude from them.
    """

    scales: Sequence[float]
    dim: int
    weighted: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        shape = (len(self.scales), self.dim)
        weight = self.param("weight", _uniform, shape)
        bias = self.param("bias", _uniform, shape)
        # The release keeps its scales in float32; float64 runs see the same numbers.
        scales = jnp.asarray(self.scales, jnp.float32).astype(x.dtype)
        return embed_scalar(x, weight, bias, scales, weighted=self.weighted)


def _uniform(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -1, 1)
