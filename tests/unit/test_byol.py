import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.objectives.byol import byol_loss, ema_update, momentum_schedule, normalise, projection_std
from tests import reference


def test_loss_follows_the_reference(x64):
    p, z = np.random.default_rng(0).normal(size=(2, 8, 2, 16))
    expected = reference.byol_loss([p[:, 0], p[:, 1]], [z[:, 0], z[:, 1]])
    np.testing.assert_allclose(byol_loss(jnp.asarray(p), jnp.asarray(z)), expected, rtol=1e-13)


def test_targets_receive_no_gradient():
    p, z = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 2, 8)), jnp.float32)
    assert (np.asarray(jax.grad(byol_loss, 1)(p, z)) == 0).all()
    assert (np.asarray(jax.grad(byol_loss, 0)(p, z)) != 0).any()


def test_a_zero_vector_has_a_finite_gradient():
    assert np.isfinite(jax.grad(lambda x: normalise(x).sum())(jnp.zeros(4))).all()


def test_momentum_rises_from_base_to_one():
    values = [float(momentum_schedule(step, steps=100, base=0.9)) for step in (0, 50, 100, 120)]
    np.testing.assert_allclose(values, [0.9, 0.95, 1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
def test_the_target_moves_by_one_minus_the_momentum(momentum):
    moved = ema_update({"a": jnp.float32([1.0, 2.0])}, {"a": jnp.float32([3.0, -2.0])}, momentum)
    np.testing.assert_allclose(moved["a"], momentum * np.array([1, 2]) + (1 - momentum) * np.array([3, -2]), rtol=1e-6)


def test_spread_is_one_on_the_sphere_and_zero_when_collapsed():
    sphere = jax.random.normal(jax.random.key(0), (4096, 2, 64))
    np.testing.assert_allclose(projection_std(sphere), 1, atol=0.02)
    np.testing.assert_allclose(projection_std(jnp.ones((16, 2, 64))), 0, atol=1e-6)
