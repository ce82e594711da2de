from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nutime_jax.core.scalars import SCALAR_LIMIT, embed_scalar, scale_weights
from tests import reference

SCALES = 10.0 ** np.arange(-4, 5)
weigh = jax.jit(scale_weights)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def parameters(seed=0, dim=32, scales=9):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (scales, dim)), rng.uniform(-1, 1, (scales, dim))


@partial(jax.jit, static_argnames="scale_eps")
def value_and_gradients(*arrays, scale_eps):
    """Of the scalars too where the epsilon is relative."""
    y, pull = jax.vjp(lambda *arrays: embed_scalar(*arrays, scale_eps=scale_eps), *arrays)
    gradients = pull(jnp.ones_like(y))
    return y, gradients if scale_eps == "relative" else gradients[1:3]


@given(st.lists(finite, min_size=4, max_size=4))
def test_every_finite_float_gives_finite_values_and_gradients(values):
    weight, bias = map(np.float32, parameters())
    y, gradients = value_and_gradients(np.float32(values), weight, bias, np.float32(SCALES), scale_eps="absolute")
    assert np.isfinite(y).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@given(st.lists(finite.filter(lambda x: abs(x) <= SCALAR_LIMIT), min_size=3, max_size=3))
def test_scale_weights_sum_to_one_and_follow_the_reference(values):
    weights = np.asarray(weigh(np.float32(values), np.float32(SCALES)))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert (weights > 0).all()


def test_the_nearest_scale_weighs_most():
    assert (np.argmax(scale_weights(jnp.float32(3 * SCALES), jnp.float32(SCALES)), -1) == np.arange(9)).all()


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("dim", [4, 32])
def test_values_follow_the_reference_over_sixteen_decades(weighted, dim):
    rng = np.random.default_rng(3)
    x = np.concatenate([[0.0], *(sign * 10.0 ** rng.uniform(-8, 8, 100) for sign in (1, -1))]).astype(np.float32)
    weight, bias = parameters(4, dim)
    ours = embed_scalar(jnp.asarray(x), jnp.float32(weight), jnp.float32(bias), jnp.float32(SCALES), weighted=weighted)
    args = [np.float32(a).astype(np.float64) for a in (x, weight, bias, SCALES)]
    theirs = reference.embed_scalar(*args, weighted=weighted)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_gradients_follow_finite_differences_of_the_reference(x64):
    x = np.array([0.0, 1e-3, -0.5, 3.0, -200.0, 7e4])
    weight, bias = parameters(5, 8)
    cotangent = np.random.default_rng(6).normal(size=(6, 8))
    pulled = jax.grad(lambda w, b: (embed_scalar(jnp.asarray(x), w, b, jnp.asarray(SCALES)) * cotangent).sum(), (0, 1))
    direction = parameters(7, 8)
    step = 1e-6

    def along(t):
        return (reference.embed_scalar(x, weight + t * direction[0], bias + t * direction[1], SCALES) * cotangent).sum()

    expected = (along(step) - along(-step)) / (2 * step)
    gradients = pulled(jnp.asarray(weight), jnp.asarray(bias))
    np.testing.assert_allclose(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)), expected, rtol=1e-6)


def relative_reference(x, weight, bias, scales):
    lines = reference.layer_norm(x[..., None, None] / scales[:, None] * weight + bias)
    return (lines * reference.scale_weights(x, scales)[..., None]).sum(-2)


def test_a_relative_epsilon_follows_the_reference_over_sixteen_decades():
    rng = np.random.default_rng(3)
    x = np.concatenate([[0.0], *(sign * 10.0 ** rng.uniform(-8, 8, 100) for sign in (1, -1))]).astype(np.float32)
    weight, bias = parameters(4)
    ours = embed_scalar(jnp.asarray(x), jnp.float32(weight), jnp.float32(bias), jnp.float32(SCALES), scale_eps="relative")
    theirs = relative_reference(*(np.float32(a).astype(np.float64) for a in (x, weight, bias, SCALES)))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_signs_are_distinguished_at_small_magnitudes_only_with_a_relative_epsilon():
    """|embed(x) - embed(-x)| at 1e-4 … 1e-3 beside that four decades up, near 1; scales reach beyond both by two decades."""
    scales, x = jnp.float32(10.0 ** np.arange(-6, 7)), jnp.float32([1e-4, 3e-4, 1e-3, 1.0, 3.0, 10.0])
    weight, bias = map(jnp.float32, parameters(8, 32, 13))
    apart = {}
    for kind in ("absolute", "relative"):
        one, other = (np.asarray(embed_scalar(sign * x, weight, bias, scales, scale_eps=kind)) for sign in (1, -1))
        apart[kind] = np.linalg.norm(one - other, axis=1)
    absolute, relative = (found[:3] / found[3:] for found in apart.values())
    np.testing.assert_array_less(absolute, 0.3)
    np.testing.assert_array_less(np.abs(np.log(relative)), np.log(1.7))


@pytest.mark.parametrize("power", [-7, 3, 12])
def test_a_relative_epsilon_makes_scalars_and_scales_together_scale_free(power):
    """To the bit where the factor is a power of two; the published epsilon is not free of it."""
    rng = np.random.default_rng(9)
    x = jnp.float32(np.concatenate([[0.0], rng.normal(size=50) * 10.0 ** rng.uniform(-5, 5, 50)]))
    weight, bias = map(jnp.float32, parameters(10))
    scales, factor = jnp.float32(SCALES), jnp.float32(2.0**power)
    for kind, same in (("relative", True), ("absolute", False)):
        one, other = (embed_scalar(x * by, weight, bias, scales * by, scale_eps=kind) for by in (jnp.float32(1), factor))
        assert np.array_equal(one, other) == same


@given(st.lists(finite, min_size=4, max_size=4))
def test_every_finite_float_gives_finite_values_and_gradients_relative_to_its_scale(values):
    weight, bias = map(np.float32, parameters())
    y, gradients = value_and_gradients(np.float32(values), weight, bias, np.float32(SCALES), scale_eps="relative")
    assert np.isfinite(y).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
