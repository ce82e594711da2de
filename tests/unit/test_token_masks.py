"""Masks of windows: how many, which, how often, and what an encoder does with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import ModelConfig
from nutime_jax.core.masking import MASK_SAMPLERS, count_masked, masked_indices, sample_mask
from nutime_jax.errors import InputError
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.pooling import pool_tokens

SMALL = {"width": 16, "depth": 1, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "scale_dim": 8, "dropout": 0.0}


ROWS, WINDOWS, SHARE = 8000, 12, 0.25  # at a half, a mask and its inverse look the same


def draw(kind, seed):
    return np.asarray(sample_mask(jax.random.key(seed), ROWS, WINDOWS, ratio=SHARE, mask_type=kind))


@pytest.mark.parametrize(
    ("windows", "share", "count"), [(32, 0.5, 16), (10, 0.25, 2), (9, 0.3, 3), (4, 0.01, 1), (4, 0.99, 3), (2, 0.5, 1)]
)
def test_one_window_at_least_is_hidden_and_one_is_seen(windows, share, count):
    assert count_masked(windows, share) == count


@pytest.mark.parametrize("kind", MASK_SAMPLERS)
def test_every_row_hides_its_share_and_every_window_is_hidden_equally_often(kind):
    mask, again, other = draw(kind, 1), draw(kind, 1), draw(kind, 2)
    assert mask.shape == (ROWS, WINDOWS)
    assert (mask.sum(1) == count_masked(WINDOWS, SHARE)).all()
    assert np.abs(mask.mean(0) - SHARE).max() < 5 * np.sqrt(SHARE * (1 - SHARE) / ROWS)
    np.testing.assert_array_equal(mask, again)
    assert (mask != other).any(1).mean() > 0.85  # of twelve blocks one is the same


def test_a_block_is_of_neighbours_and_random_windows_are_not():
    blocks, scattered = draw("block", 3), draw("random", 3)
    ends = [(mask != np.roll(mask, 1, axis=1)).sum(1) for mask in (blocks, scattered)]
    assert (ends[0] == 2).all()
    pairs = scattered.astype(float).T @ scattered / ROWS
    chance = 3 * 2 / (12 * 11)  # that two given windows are both hidden
    assert np.abs(pairs[~np.eye(WINDOWS, dtype=bool)] - chance).max() < 5 * np.sqrt(chance * (1 - chance) / ROWS)


def test_places_are_in_the_order_of_time():
    mask = jnp.array([[False, True, True, False], [True, False, False, True]])
    np.testing.assert_array_equal(masked_indices(mask, 2), [[1, 2], [0, 3]])
    np.testing.assert_array_equal(masked_indices(~mask, 2), [[0, 3], [1, 2]])


@pytest.mark.parametrize(
    ("masking", "message"),
    [
        ((1.0, "random"), r"model.mask_ratio is 1.0; choose a number from 0 to below 1"),
        ((True, "random"), r"model.mask_ratio is True; choose a number"),
        (("half", "random"), r"model.mask_ratio is 'half'; choose a number"),
        ((0.5, "stripes"), r"model.mask_type is 'stripes'; choose one of random, block"),
        ((0.5, "block", "noise"), r"model.mask_strategy is 'noise'; choose one of learned, drop"),
    ],
)
def test_masks_that_cannot_be_are_rejected(masking, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**dict(zip(("mask_ratio", "mask_type", "mask_strategy"), masking, strict=False)))


def test_one_window_cannot_be_masked():
    with pytest.raises(InputError, match="a series of 1 window cannot be masked"):
        sample_mask(jax.random.key(0), 3, 1, ratio=0.5, mask_type="random")
    with pytest.raises(InputError, match="mask_type 'stripes' is unknown; choose one of random, block"):
        sample_mask(jax.random.key(0), 3, 8, ratio=0.5, mask_type="stripes")


X = jax.random.normal(jax.random.key(7), (6, 1, 128)).cumsum(-1)


def encode(network, variables, *, train, seed=0):
    rngs = {"dropout": jax.random.key(seed)} if train else {}
    return jax.jit(lambda variables: network.apply(variables, X, train=train, rngs=rngs))(variables)


def test_a_mask_moves_no_weight_and_is_for_training_alone():
    options = ({}, {"mask_ratio": 0.25}, {"mask_ratio": 0.25, "mask_strategy": "drop"})
    plain, learned, dropped = (NuTimeEncoder(ModelConfig(**SMALL, **more)) for more in options)
    ours, theirs, others = (jax.jit(network.init)(jax.random.key(0), X) for network in (plain, learned, dropped))
    assert theirs["params"].pop("mask_token").shape == (16,)
    for one in (theirs, others):
        assert jax.tree.structure(one) == jax.tree.structure(ours)
        jax.tree.map(np.testing.assert_array_equal, one, ours)
    expected = encode(plain, ours, train=False).normalised
    np.testing.assert_array_equal(encode(dropped, ours, train=False).normalised, expected)
    theirs["params"]["mask_token"] = jnp.full(16, 3.0)
    np.testing.assert_array_equal(encode(learned, theirs, train=False).normalised, expected)
    trained = encode(learned, theirs, train=True)
    assert trained.normalised.shape == (6, 9, 16)
    assert np.abs(trained.normalised - expected).max() > 0.1
    assert np.abs(trained.normalised - encode(learned, theirs, train=True, seed=1).normalised).max() > 0.1


def test_a_learned_vector_stands_where_windows_are_hidden():
    network = NuTimeEncoder(ModelConfig(**SMALL, mask_ratio=0.25))
    variables = jax.jit(network.init)(jax.random.key(0), X)
    variables["params"]["mask_token"] = jnp.arange(16.0)
    first = np.asarray(encode(network, variables, train=True).layers[0])
    positions = np.asarray(variables["constants"]["positions"])[:9]
    stands = np.isclose(first - positions, np.arange(16.0), atol=1e-5).all(-1)
    assert not stands[:, 0].any()
    assert (stands[:, 1:].sum(1) == 2).all()  # of eight windows
    plain = np.asarray(encode(network, variables, train=False).layers[0])
    np.testing.assert_array_equal(first[~stands], plain[~stands])


def test_dropped_windows_are_gone_and_the_others_keep_their_positions():
    network = NuTimeEncoder(ModelConfig(**SMALL, mask_ratio=0.25, mask_strategy="drop"))
    variables = jax.jit(network.init)(jax.random.key(0), X)
    trained, plain = (encode(network, variables, train=train) for train in (True, False))
    assert all(layer.shape == (6, 7, 16) for layer in trained.layers)
    for some, whole in zip(np.asarray(trained.layers[0]), np.asarray(plain.layers[0]), strict=True):
        places = [int(np.flatnonzero((whole == token).all(-1))[0]) for token in some]
        assert places == sorted(set(places))
        assert places[0] == 0
    assert np.isfinite(pool_tokens(trained, pooling="cls+mean")).all()
