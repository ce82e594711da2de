import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nutime_jax.core.resample import resize, resize_on_host
from nutime_jax.errors import InputError
from tests import reference

resize_jitted = jax.jit(lambda x, length: resize(x, 64, length=length))
finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@pytest.mark.parametrize(("length", "size"), [(1, 16), (7, 32), (24, 512), (500, 512), (513, 176), (512, 512), (2000, 64)])
def test_values_follow_the_reference(length, size, x64):
    x = np.random.default_rng(0).normal(size=length)
    np.testing.assert_allclose(resize(jnp.asarray(x), size), reference.resize(x, size), atol=1e-12)


@pytest.mark.parametrize("size", [512, 519])
def test_short_series_are_upsampled_to_the_last_digits(size):
    """Positions have no error: a rounded position tilts all windows that lie between two values."""
    compiled = jax.jit(lambda x, length: resize(x, size, length=length))
    for length in range(1, 40):
        x = np.random.default_rng(length).normal(size=length).astype(np.float32)
        expected = reference.resize(x.astype(np.float64), size)
        for found in (resize_on_host(x, size), compiled(np.pad(x, (0, 40 - length)), length)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=2.5e-7 * np.abs(x).max())


@pytest.mark.slow
@given(st.lists(finite, min_size=40, max_size=40), st.integers(1, 40))
def test_results_are_finite_and_within_the_series(values, length):
    values = values[:length]
    x = jnp.asarray(values + [np.nan] * (40 - length), jnp.float32)
    y = np.asarray(resize_jitted(x, length), np.float64)
    slack = 1e-6 * np.abs(values).max()
    assert np.isfinite(y).all()
    assert y.min() >= min(values) - slack
    assert y.max() <= max(values) + slack


@given(finite.filter(lambda x: x == 0 or abs(x) > 2.4e-38), st.integers(1, 600))
def test_a_constant_stays_constant_to_the_bit(value, length):
    assert (np.asarray(resize_jitted(jnp.full(600, value, jnp.float32), length)) == np.float32(value)).all()


def test_a_stretch_is_resized_as_if_it_stood_alone():
    x = jnp.asarray(np.random.default_rng(1).normal(size=100), jnp.float32)
    stretch = jax.jit(lambda start, length: resize(x, 32, start=start, length=length))(13, 41)
    np.testing.assert_allclose(stretch, resize(x[13:54], 32), atol=1e-6)


def test_what_lies_outside_the_stretch_is_never_read():
    x = jnp.full(64, jnp.nan).at[10:20].set(1.0)
    assert (np.asarray(resize(x, 512, start=10, length=10)) == 1).all()


def test_a_series_beyond_float32_positions_is_rejected():
    with pytest.raises(InputError, match="too long to be resized"):
        jax.eval_shape(lambda x: resize(x, 512), jax.ShapeDtypeStruct((2**24,), jnp.float32))


@given(st.lists(finite, min_size=1, max_size=40))
def test_on_the_host_it_is_the_same_to_rounding(values):
    x = np.array(values, np.float32)
    padded = jnp.asarray(np.pad(x, (0, 40 - len(x))))
    slack = 3e-7 * np.abs(x).max() + 1e-37
    np.testing.assert_allclose(resize_on_host(x, 64), resize_jitted(padded, len(x)), rtol=0, atol=slack)


@pytest.mark.parametrize("length", [1, 7, 500, 512, 513, 20_000])
def test_on_the_host_it_follows_the_reference(length):
    x = np.random.default_rng(0).normal(size=(3, length)).astype(np.float32)
    resized = resize_on_host(x, 512)
    assert resized.dtype == np.float32
    assert not np.shares_memory(resized, x)
    expected = [reference.resize(one.astype(np.float64), 512) for one in x]
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-6)
    assert (resize_on_host(np.full(length, 0.1, np.float32), 512) == np.float32(0.1)).all()


def test_on_the_host_a_series_beyond_float32_positions_is_rejected():
    with pytest.raises(InputError, match="too long to be resized"):
        resize_on_host(np.broadcast_to(np.float32(1), 2**24), 512)
