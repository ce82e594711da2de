"""How tokens are told where they are, against float64 NumPy, and by what must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import ModelConfig
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.positions import apply_rotary, interpolate_pos_embedding, rotary_angles, sinusoidal_positions, token_positions
from tests import reference
from tests.unit.test_models import SHALLOW, SMALL, draw


def test_windows_that_begin_together_have_one_place():
    places = token_positions({16: 4, 8: 8, 32: 2}, 16)
    np.testing.assert_array_equal(places, [0, 1, 2, 3, 4, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 1, 3])
    # Every 8 points: seven windows of 16; every 4, fifteen of 8.
    np.testing.assert_array_equal(token_positions({16: 7, 8: 15}, 16)[8:], 1 + np.arange(15) / 2)


def test_a_table_is_read_by_rows_and_linearly_between_them():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)), jnp.float32)
    np.testing.assert_array_equal(interpolate_pos_embedding(table, np.arange(5.0)), table[:5])
    np.testing.assert_array_equal(interpolate_pos_embedding(table, np.array([0.0, 3, 8])), table[np.array([0, 3, 8])])
    np.testing.assert_allclose(interpolate_pos_embedding(table, np.array([1.25]))[0], 0.75 * table[1] + 0.25 * table[2], rtol=1e-5)


def test_scores_depend_on_differences_of_places_alone(x64):
    rng = np.random.default_rng(1)
    q, k = (jnp.asarray(rng.normal(size=(2, 3, 6, 8))) for _ in range(2))
    places = rng.uniform(0, 1000, 6)

    def scores(places):
        angles = rotary_angles(places, 8)
        return np.asarray(jnp.einsum("bhqd,bhkd->bhqk", apply_rotary(q, angles), apply_rotary(k, angles)))

    np.testing.assert_allclose(scores(places + 17.3), scores(places), atol=1e-11)
    assert np.abs(scores(places[::-1]) - scores(places)).max() > 0.1
    # A token turns nothing of itself, and CLS, at place 0, is not turned.
    np.testing.assert_allclose(np.diagonal(scores(places), axis1=2, axis2=3), (q * k).sum(-1), atol=1e-11)
    np.testing.assert_array_equal(apply_rotary(q, rotary_angles(np.zeros(6), 8)), q)
    np.testing.assert_allclose(apply_rotary(q, rotary_angles(places, 8)), reference.rotate(np.asarray(q), places), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_an_encoder_of_overlapping_windows_of_several_sizes_follows_the_reference(positions, x64):
    network = NuTimeEncoder(ModelConfig(**SMALL, pos_embedding=positions, stride=8, extra_window_sizes=(8, 32), max_tokens=40))
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), draw(network, (1, 1, 96)))
    params = variables["params"]
    x = np.random.default_rng(2).normal(size=(3, 96)) * np.array([[1e-3], [1.0], [1e4]]) + 5
    ours = jax.jit(network.apply)(variables, jnp.asarray(x)[:, None]).normalised

    scales = np.float32(network.config.scales).astype(np.float64)
    tokens, places = [], [np.zeros(1)]
    for size, stride, name in ((16, 8, ""), (8, 4, "_8"), (32, 16, "_32")):
        one = reference.embed(x, params["embedding"], window=size, stride=stride, scales=scales, name=name)
        tokens.append(one + params["embedding"]["size"][len(tokens)])
        places.append(1 + np.arange(one.shape[1]) * stride / 8)
    places = np.concatenate(places)
    table, turn = np.zeros((len(places), 16)), lambda x: x
    if positions == "rotary":
        turn = lambda x: reference.rotate(x, places)  # noqa: E731
    else:
        rows = params["positions"]
        table = np.stack([np.interp(places, np.arange(len(rows)), column) for column in rows.T], axis=1)
    theirs = reference.encode_tokens(np.concatenate(tokens, 1), params, table, heads=2, turn=turn)
    assert ours.shape == (3, 1 + 11 + 23 + 5, 16)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.slow
def test_without_positions_the_order_of_windows_is_not_seen():
    x = jax.random.normal(jax.random.key(0), (2, 4, 16)) * jnp.array([1.0, 10, 0.1, 3])[None, :, None]
    ordered, mixed = (one.reshape(2, 1, 64) for one in (x, x[:, np.array([2, 0, 3, 1])]))
    moved = {}
    for positions in ("sinusoidal", "learned", "rotary", "none"):
        network = NuTimeEncoder(ModelConfig(**SHALLOW, pos_embedding=positions))
        variables = draw(network, (1, 1, 64))
        encode = jax.jit(lambda x, network=network, variables=variables: network.apply(variables, x, num_output_tokens=1).normalised)
        moved[positions] = float(jnp.abs(encode(ordered) - encode(mixed)).max())
    assert moved.pop("none") < 1e-5
    assert min(moved.values()) > 1e-3, moved


def test_a_learned_table_is_small_and_moves_no_other_weight():
    drawn = {
        positions: jax.jit(NuTimeEncoder(ModelConfig(**SHALLOW, pos_embedding=positions)).init)(jax.random.key(0), jnp.zeros((1, 1, 64)))
        for positions in ("learned", "sinusoidal")
    }
    table = np.asarray(drawn["learned"]["params"].pop("positions"))
    assert table.shape == (1024, 16)
    np.testing.assert_allclose([table.mean(), table.std()], [0, 0.02], atol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, drawn["learned"]["params"], drawn["sinusoidal"]["params"])
    np.testing.assert_array_equal(drawn["sinusoidal"]["constants"]["positions"], sinusoidal_positions(1024, 16))
