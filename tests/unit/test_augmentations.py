"""Augmentations of views: what each does to a series, and that none spoils one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.core.augmentations import (
    AUGMENTATIONS,
    BLOCK,
    SLICE,
    cutout,
    frequency_mask,
    jitter,
    level_shift,
    make_augmentation,
    mask_blocks,
    scale,
    slice_warp,
    time_reversal,
    time_warp,
    vertical_flip,
)
from nutime_jax.core.views import two_views
from nutime_jax.errors import InputError

X = jnp.asarray(np.random.default_rng(0).normal(size=200).cumsum() + 3, jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 500)


@partial(jax.jit, static_argnums=(0, 2))
def under_every_key(one, x, strength):
    return jax.vmap(lambda key: one(key, x, strength))(KEYS)


def drawn(one, x, strength):
    """The augmentation under every key."""
    return np.asarray(under_every_key(one, x, strength), np.float64)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_at_strength_0_nothing_changes(name):
    np.testing.assert_allclose(drawn(AUGMENTATIONS[name], X, 0.0), np.broadcast_to(X, (500, 200)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_views_differ_and_repeat_with_the_key(name):
    first, again = (drawn(AUGMENTATIONS[name], X, 0.5) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first.round(4), axis=0)) > 1


@pytest.mark.parametrize("length", [1, 2, 200])
def test_whatever_goes_in_stays_finite_and_keeps_its_length(length):
    augment = jax.jit(jax.vmap(make_augmentation([f"{name}=0.9" for name in AUGMENTATIONS]), in_axes=(0, None)))
    for factor in (1e-30, 1e30, 3e38, 0.0):
        found = augment(KEYS[:50], X[:length] / jnp.abs(X[:length]).max() * factor)
        assert found.shape == (50, length)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_nothing_depends_on_the_scale(name):
    augment = jax.jit(make_augmentation([f"{name}=0.5"]))
    np.testing.assert_array_equal(augment(KEYS[0], X * 2.0**40), augment(KEYS[0], X) * 2.0**40)


def test_jitter_is_noise_of_a_share_of_the_spread():
    noise = (drawn(jitter, X, 0.3) - np.asarray(X)) / np.std(X)
    spreads = noise.std(1)
    assert 0 < spreads.min() < 0.02
    assert 0.28 < spreads.max() < 0.36
    assert spreads.mean() == pytest.approx(0.15, abs=0.02)  # uniform between 0 and 0.3
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.2


def test_scale_and_level_are_one_number_a_view():
    decades = np.log10(drawn(scale, X, 0.2) / np.asarray(X))
    np.testing.assert_allclose(decades.std(1), 0, atol=1e-5)
    assert decades[:, 0].std() == pytest.approx(0.2, abs=0.02)
    added = (drawn(level_shift, X, 0.5) - np.asarray(X)) / np.std(X)
    np.testing.assert_allclose(added.std(1), 0, atol=1e-5)
    assert added[:, 0].std() == pytest.approx(0.5, abs=0.05)


def test_flip_mirrors_some_views_about_the_mean():
    found = drawn(vertical_flip, X, 0.3)
    mirrored = np.isclose(found, 2 * np.mean(X) - np.asarray(X), atol=1e-4).all(1)
    assert (mirrored | (found == np.asarray(X)).all(1)).all()
    assert mirrored.mean() == pytest.approx(0.3, abs=0.07)


def test_time_runs_on_and_ends_where_it_ended():
    ramp = jnp.arange(100.0)
    found = drawn(time_warp, ramp, 0.4)
    assert (np.diff(found, axis=1) > 0).all()
    np.testing.assert_allclose(found[:, [0, -1]], np.broadcast_to([0, 99], (500, 2)), atol=1e-3)
    assert np.abs(found - np.arange(100)).max() > 10


def test_a_slice_is_warped_as_in_numpy():
    found = drawn(slice_warp, X, 0.3)
    for key, warped in zip(KEYS[:20], found, strict=False):
        speed_key, start_key = jax.random.split(key)
        start = float(jax.random.uniform(start_key, maxval=(1 - SLICE) * 199))
        steps = np.arange(199)
        exponent = np.where((steps >= start) & (steps < start + SLICE * 199), 0.3 * float(jax.random.normal(speed_key)), 0)
        distance = np.concatenate([[0], np.cumsum(10.0**exponent)])
        expected = np.interp(distance / distance[-1] * 199, np.arange(200), np.asarray(X, np.float64))
        np.testing.assert_allclose(warped, expected, atol=1e-3)
    assert np.abs(found - np.asarray(X)).max() > 1


def test_some_views_are_reversed():
    found = drawn(time_reversal, X, 0.3)
    reverse = (found == np.asarray(X)[::-1]).all(1)
    assert (reverse | (found == np.asarray(X)).all(1)).all()
    assert reverse.mean() == pytest.approx(0.3, abs=0.07)


def test_a_cut_is_one_stretch():
    hidden = drawn(cutout, X, 0.5) != np.asarray(X)
    assert hidden.mean(1).max() <= 0.51
    assert hidden.mean() == pytest.approx(0.25, abs=0.03)
    assert (np.abs(np.diff(hidden.astype(int), axis=1)).sum(1) <= 2).all()
    assert hidden.any(0).all()


def test_masks_hide_whole_blocks():
    hidden = drawn(mask_blocks, X, 0.5) != np.asarray(X)
    padded = np.pad(hidden, ((0, 0), (0, -200 % BLOCK)), mode="edge").reshape(500, -1, BLOCK)
    assert (padded.all(2) == padded.any(2)).all()
    assert hidden.mean() == pytest.approx(0.25, abs=0.03)


def test_masked_frequencies_are_gone_and_the_mean_stays():
    found = drawn(frequency_mask, X, 0.8)
    before, after = np.fft.rfft(np.asarray(X, np.float64)), np.fft.rfft(found)
    gone = np.abs(after) < 1e-3 * np.abs(before).mean()
    np.testing.assert_allclose(np.where(gone, 0, after - before), 0, atol=1e-2)
    assert not gone[:, 0].any()
    assert gone[:, 1:].mean() == pytest.approx(0.4, abs=0.04)


def test_two_views_are_augmented_separately():
    series, lengths = jnp.stack([X, 1e6 * X]), jnp.full(2, 200)
    options = {"size": 64, "ratio": (1.0, 1.0)}
    plain = two_views(jax.random.key(1), series, lengths, **options).values
    found = two_views(jax.random.key(1), series, lengths, augment=make_augmentation(["level_shift=1", "vertical_flip=0"]), **options).values
    added = np.asarray(found - plain) / np.std(X)
    assert len(np.unique(added[..., 0].round(2))) == 4
    np.testing.assert_allclose(added.std(-1) / np.abs(added.mean(-1)), 0, atol=1e-3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("noise=1", "augment.transforms has 'noise=1'; write name=strength, with one of jitter, scale"),
        ("jitter", "augment.transforms has 'jitter'; choose a strength of 0 or more"),
        ("jitter=-1", "choose a strength of 0 or more"),
        ("jitter=inf", "choose a strength of 0 or more"),
        ("jitter=nan", "choose a strength of 0 or more"),
        ("mask_blocks=1.1", "augment.transforms has 'mask_blocks=1.1'; choose a strength from 0 to 1"),
    ],
)
def test_what_cannot_be_done_is_rejected(entry, message):
    with pytest.raises(InputError, match=message):
        make_augmentation(["scale=0.1", entry])
