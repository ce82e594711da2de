from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nutime_jax.core.windows import count_windows, dense_windows, first_difference, normalise_windows
from nutime_jax.data.series import centre_to_float32
from nutime_jax.errors import InputError
from tests import reference

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
normalise_overlapping = jax.jit(partial(normalise_windows, window=8, stride=4))
normalise_apart = jax.jit(partial(normalise_windows, window=8))
normalise_jitted = jax.jit(partial(normalise_windows, window=16))
series = st.lists(finite, min_size=16, max_size=16)


@jax.jit
def values_and_gradient(x):
    gradient = jax.grad(lambda x: (jnp.sin(normalise_windows(x, window=8).normalised) / 8).sum())(x)
    return *normalise_windows(x, window=8), gradient


@given(series)
def test_every_finite_float_gives_finite_values_and_gradients(values):
    assert all(np.isfinite(part).all() for part in values_and_gradient(jnp.asarray(values, jnp.float32)))


@pytest.mark.parametrize("magnitude", [1e-30, 1e-4, 1.0, 1e6, 1e30, float(np.finfo(np.float32).max)])
def test_extreme_magnitudes_keep_their_shape(magnitude):
    unit = np.random.default_rng(0).uniform(-1, 1, 16)
    x = np.asarray(unit * magnitude, np.float32)
    shape, mean, std = (np.asarray(part) for part in normalise_jitted(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean[0] / magnitude, exact.mean() / magnitude, rtol=1e-5)
    np.testing.assert_allclose(std[0] / magnitude, exact.std(ddof=1) / magnitude, rtol=1e-5)
    np.testing.assert_allclose(shape[0], (exact - exact.mean()) / (exact.std(ddof=1) + 1e-8), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 256])
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_a_constant_window_has_a_shape_of_exactly_zero(batch, value):
    x = jnp.full((batch, 512), value, jnp.float32)
    shape, mean, std = normalise_jitted(x)
    assert (np.asarray(shape) == 0).all()
    assert (np.asarray(std) == 0).all()
    assert (np.asarray(mean) == np.asarray(x)[:, ::16]).all()


@given(
    unit=st.lists(st.floats(-1, 1, width=32), min_size=16, max_size=16).filter(lambda v: np.std(v) > 1e-2),
    exponent=st.integers(-2, 4),
    shift=st.floats(-10, 10, width=32),
)
def test_shape_survives_scale_and_shift_above_a_std_of_1e_4(unit, exponent, shift):
    x = np.asarray(unit, np.float64)
    scale = 10.0**exponent
    moved = (x * scale + shift * scale).astype(np.float32)
    before, after = (normalise_jitted(np.float32(v)) for v in (x, moved))
    # eps is 1e-8 beside a std of at least 1e-4; float32 resolves 10 * scale to 1e-6 * scale, beside a std of 1e-2 * scale.
    np.testing.assert_allclose(after.normalised, before.normalised, atol=2e-3)
    exact = moved.astype(np.float64)
    np.testing.assert_allclose(after.mean[0], exact.mean(), rtol=1e-6, atol=2e-6 * scale)
    np.testing.assert_allclose(after.std[0], exact.std(ddof=1), rtol=1e-4)


def test_values_and_gradient_are_those_of_the_published_form(x64):
    x = np.random.default_rng(1).normal(3, 2, (4, 3, 96))
    for ours, theirs in zip(normalise_jitted(x), reference.windows(x, 16), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    weights = np.random.default_rng(2).normal(size=(4, 3, 6, 16))
    gradient = jax.jit(jax.grad(lambda x: (normalise_windows(x, window=16).normalised * weights).sum()))(x)
    _, _, std = reference.windows(x, 16)
    np.testing.assert_allclose(gradient, (weights / (std + 1e-8)[..., None]).reshape(x.shape), rtol=1e-12)


def test_a_length_that_is_no_multiple_of_the_window_is_rejected():
    with pytest.raises(InputError, match="length 100 is not divisible by window 16"):
        normalise_windows(jnp.zeros(100), window=16)


def test_an_offset_comes_back_in_the_means_alone():
    rng = np.random.default_rng(3)
    x = 101_325 + 0.01 * rng.normal(size=(5, 64))
    (values, offset) = zip(*(centre_to_float32(one) for one in x), strict=True)
    apart = normalise_windows(jnp.asarray(values), window=16, offset=jnp.asarray(offset))
    shape, mean, std = reference.windows(x, 16)
    np.testing.assert_allclose(apart.normalised, shape, atol=1e-4)
    np.testing.assert_allclose(apart.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(apart.std, std, rtol=1e-4)
    together = normalise_windows(jnp.asarray(x, jnp.float32), window=16)
    assert np.abs(together.normalised - shape).max() > 0.1  # what float32 alone makes of it


@pytest.mark.parametrize("window", [1, 2, 12, 16, 512])
def test_the_mean_of_a_window_is_exact_in_any_batch(window):
    """Noise about zero has a mean of few true digits; NME embeds its magnitude, so that every one of them counts."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 1024 // window * window)) * 10.0 ** rng.uniform(-20, 37, size=(300, 1))).astype(np.float32)
    means = jax.jit(lambda x: normalise_windows(x, window=window).mean)
    exact = x.astype(np.float64).reshape(300, -1, window).mean(-1)
    whole = np.asarray(means(x))
    np.testing.assert_allclose(whole, exact, rtol=1e-6)
    for rows in (1, 7):
        np.testing.assert_allclose(means(x[:rows]), whole[:rows], rtol=1.2e-7)


def test_huge_and_constant_windows_have_their_mean():
    largest = np.finfo(np.float32).max
    values = np.float32([largest, -largest, largest / 300, 0.1, 1e-37])[:, None]
    half = np.repeat(np.float32([largest, largest / 2]), 256)
    series = np.concatenate([np.broadcast_to(values, (5, 512)), half[None]])
    short, long = jax.jit(lambda x: [normalise_windows(x, window=window).mean for window in (16, 512)])(series)
    np.testing.assert_array_equal(short[:5], np.broadcast_to(values, (5, 32)))
    np.testing.assert_array_equal(long[:5], values)
    np.testing.assert_allclose(long[5], [0.75 * largest], rtol=1e-6)


@pytest.mark.parametrize(("window", "stride"), [(16, 1), (16, 8), (16, 10), (8, 3), (2, 1)])
def test_overlapping_windows_are_those_of_the_published_form(window, stride, x64):
    length = window + 7 * stride
    x = np.random.default_rng(4).normal(3, 2, (4, 3, length))
    expected = reference.windows(x, window, stride)
    weights = np.random.default_rng(5).normal(size=expected[0].shape)

    def loss(x):
        windows = normalise_windows(x, window=window, stride=stride)
        return (windows.normalised * weights).sum(), windows

    gradient, windows = jax.jit(jax.grad(loss, has_aux=True))(x)
    for ours, theirs in zip(windows, expected, strict=True):
        assert ours.shape[2] == count_windows(length, window=window, stride=stride) == 8
        np.testing.assert_allclose(ours, theirs, rtol=1e-11)
    theirs = np.zeros_like(x)
    for place in range(8):
        theirs[..., place * stride : place * stride + window] += weights[:, :, place] / (expected[2][:, :, place] + 1e-8)[..., None]
    np.testing.assert_allclose(gradient, theirs, rtol=1e-10)


def test_a_stride_of_a_window_is_none():
    x = jax.random.normal(jax.random.key(0), (5, 96))
    for one, other in zip(normalise_windows(x, window=16), normalise_windows(x, window=16, stride=16), strict=True):
        np.testing.assert_array_equal(one, other)


@given(series)
def test_overlapping_windows_of_finite_floats_are_finite_and_those_without_overlap_among_them(values):
    x = jnp.asarray(values, jnp.float32)
    overlapping, apart = normalise_overlapping(x), normalise_apart(x)
    for one, other in zip(overlapping, apart, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one[::2], other, rtol=4e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "stride", "message"),
    [
        (97, 8, "length 97 is not tiled by windows of 16 time points every 8; choose 16 plus a multiple of 8"),
        (8, 4, "length 8 is not tiled by windows"),
        (96, 20, "windows of 16 time points every 20 leave gaps; choose a stride of 1 to 16, or 0 for 16"),
        (96, -1, "leave gaps"),
    ],
)
def test_windows_that_leave_something_out_are_rejected(length, stride, message):
    with pytest.raises(InputError, match=message):
        normalise_windows(jnp.zeros(length), window=16, stride=stride)


@pytest.mark.parametrize(("stride", "dense_stride"), [(16, 2), (16, 16), (8, 4), (16, 1)])
def test_dense_windows_are_windows_at_every_start(stride, dense_stride, x64):
    x = np.random.default_rng(6).normal(3, 2, (2, 3, 64))
    dense = dense_windows(jnp.asarray(x), window=16, stride=stride, dense_stride=dense_stride)
    every = reference.windows(x, 16, 1)[0]
    assert dense.valid[:, 0].all()
    assert dense.valid.sum() == len(range(0, 64 - 16 + 1, dense_stride))
    for token, phase in np.argwhere(dense.valid):
        expected = every[:, :, token * stride + phase * dense_stride]
        np.testing.assert_allclose(dense.normalised[:, :, token, phase], expected, rtol=1e-11)


def test_dense_windows_of_a_constant_series_are_exactly_zero():
    x = jnp.broadcast_to(jnp.asarray([[0.1], [1e30], [-3e-4]], jnp.float32), (3, 64))
    for values in (x, first_difference(x)):
        assert (np.asarray(dense_windows(values, window=16, stride=16, dense_stride=2).normalised) == 0).all()


def test_the_first_difference_keeps_the_length_and_does_not_overflow():
    largest = np.finfo(np.float32).max
    x = jnp.asarray([-largest, largest, 0.0, 4.0])
    np.testing.assert_array_equal(first_difference(x), np.float32([largest, largest, -largest / 2, 2.0]))
    np.testing.assert_array_equal(first_difference(jnp.ones((2, 1))), np.zeros((2, 1)))
