"""Pooled stem features: reference, invariance, finite values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.models.stem import STATISTICS, pooled_stem_features
from tests import reference

KERNELS = np.random.default_rng(0).normal(size=(16, 3))
DILATIONS = (1, 4, 32)


@pytest.mark.parametrize("length", [16, 100, 512])
def test_features_follow_the_reference(length, x64):
    x = np.random.default_rng(1).normal(size=(2, length)).cumsum(1) * 1e3 + 1e4
    ours = pooled_stem_features(jnp.asarray(x), jnp.asarray(KERNELS), dilations=DILATIONS)
    expected = np.stack([reference.stem_features(row, KERNELS, DILATIONS) for row in x])
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9, strict=True)


def test_features_do_not_depend_on_scale_or_level():
    x = np.float32(np.sin(np.arange(300) / 7) + np.random.default_rng(2).normal(size=300) / 4)
    features = jax.jit(lambda x: pooled_stem_features(x, jnp.float32(KERNELS), dilations=DILATIONS))
    one = features(x)
    for factor, level in ((2.0**60, 0), (2.0**-60, 0), (1, 8)):
        np.testing.assert_allclose(features(x * np.float32(factor) + np.float32(level)), one, atol=2e-5)


def test_values_and_gradients_are_finite_for_every_series():
    flat, noise = np.zeros((4, 64)), np.random.default_rng(3).normal(size=(4, 64))
    flat += np.array([0, 1, -1e30, 3e38])[:, None]
    x = jnp.float32(np.concatenate([flat, noise * np.array([1e-38, 1e-30, 1, 1e38])[:, None]]))
    loss = lambda x, kernels: jnp.sin(pooled_stem_features(x, kernels, dilations=DILATIONS)).sum()  # noqa: E731
    for kernels in (jnp.float32(KERNELS), jnp.zeros((16, 3)), jnp.ones((16, 3))):
        value, gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernels)
        assert all(np.isfinite(leaf).all() for leaf in (value, *gradient))
    parts = pooled_stem_features(x[:4], jnp.float32(KERNELS), dilations=DILATIONS).reshape(4, len(DILATIONS), STATISTICS, 3)
    np.testing.assert_array_equal(parts, np.broadcast_to(np.array([1, 0.5, 0, 0, 0])[:, None], parts.shape))
