"""Masks are as random as those of JAX's generator, by statistics that a poor hash fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import ModelConfig
from nutime_jax.core.dropout import drop
from nutime_jax.models.layers import StochasticDepth
from nutime_jax.models.network import build_encoder

SHAPE = (64, 8, 40, 40)


def masks(seed, shape=SHAPE, rate=0.5):
    """+1 where an element is kept and -1 where it is dropped."""
    return np.where(np.asarray(drop(jax.random.key(seed), jnp.ones(shape), rate=rate)) > 0, 1.0, -1.0)


def deviates(correlation, count):
    """Standard deviations that the mean of so many independent products of signs is away from zero."""
    return abs(correlation) * np.sqrt(count)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_met_and_the_mean_kept(rate):
    kept = np.asarray(drop(jax.random.key(1), jnp.ones(SHAPE), rate=rate))
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1) / np.float32(1 - rate)}
    spread = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs((kept == 0).mean() - rate) < 5 * spread
    rows = (kept == 0).reshape(len(kept), -1)
    spread = rows.mean(1).std() / np.sqrt(rate * (1 - rate) / rows.shape[1])
    assert 0.65 < spread < 1.4  # of 64 rows: more or less alike than chance would have it by 4 standard deviations


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("shift", [1, 2, 7, 16, 32])
def test_neighbours_are_independent(axis, shift):
    signs = masks(2)
    shift = min(shift, signs.shape[axis] // 2)
    assert deviates((signs * np.roll(signs, shift, axis)).mean(), signs.size) < 5


def test_rows_keys_and_places_are_independent():
    first, second = masks(3).reshape(64, -1), masks(4).reshape(64, -1)
    count = first.shape[1]
    between = np.abs(first @ first.T / count - np.eye(64)).max()
    assert deviates(between, count) < 5.5  # the largest of 2,016
    assert deviates((first * second).mean(), first.size) < 5
    places = np.abs(first.mean(0)).max()
    assert deviates(places, 64) < 6  # the largest of 12,800


def test_no_row_is_a_shifted_copy_of_another():
    rows = masks(5, (16, 4096))
    spectra = np.fft.rfft(rows)
    for i in range(16):
        others = np.fft.irfft(spectra[i] * np.conj(np.delete(spectra, i, 0))) / 4096
        assert deviates(np.abs(others).max(), 4096) < 6.5  # the largest of 61,440


def test_runs_have_the_lengths_of_chance():
    """Of a coin: a run goes on with probability a half, wherever it stands."""
    signs = masks(6).ravel()
    changes = np.flatnonzero(np.diff(signs))
    runs = np.diff(changes)
    expected = len(runs) * 0.5 ** np.arange(1, 13)
    seen = np.array([(runs == length).sum() for length in range(1, 13)])
    assert (np.square(seen - expected) / expected).sum() < 40  # chi-square of 12; 40 is one in 14,000


def test_masks_depend_on_key_and_shape_alone_and_the_gradient_follows_them():
    x = jax.random.normal(jax.random.key(0), (4, 6))
    np.testing.assert_array_equal(masks(7, (4, 6)), masks(7, (4, 6)))
    assert (masks(7) != masks(8)).mean() > 0.4
    gradient = jax.grad(lambda x: drop(jax.random.key(7), x, rate=0.5).sum())(x)
    np.testing.assert_array_equal(gradient, np.where(masks(7, (4, 6)) > 0, 2.0, 0.0))
    assert drop(jax.random.key(7), x.astype(jnp.bfloat16), rate=0.5).dtype == jnp.bfloat16


def test_stochastic_depth_skips_branches_of_whole_cases_and_more_of_later_blocks():
    """Every case has both residual branches of a block, one, or none, each divided by 1 - rate."""
    config = ModelConfig(width=8, depth=2, num_heads=2, head_dim=4, mlp_dim=16, dropout=0.0, stochastic_depth=0.8)
    network, x = build_encoder(config), jax.random.normal(jax.random.key(0), (400, 1, 32))
    variables = network.init(jax.random.key(1), x[:1])
    first, second, third = network.apply(variables, x, train=True, rngs={"dropout": jax.random.key(2)}).layers
    for before, after, rate in ((first, second, 0.4), (second, third, 0.8)):
        unchanged = np.asarray((before == after).all((1, 2)))
        assert unchanged.mean() == pytest.approx(rate**2, abs=0.08)
    branch = StochasticDepth(0.4).apply({}, jnp.ones((500, 3, 2)), train=True, rngs={"dropout": jax.random.key(3)})
    assert set(np.unique(branch).round(4).tolist()) == {0.0, np.float32(1 / 0.6).round(4)}
    assert (branch == branch[:, :1, :1]).all()
    assert (network.apply(variables, x).layers[2] != network.apply(variables, x).layers[1]).any((1, 2)).all()
