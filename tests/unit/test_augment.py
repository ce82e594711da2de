import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nutime_jax.core.views import random_crop, two_views

seeds = st.integers(0, 2**31 - 1)
ratios = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: tuple(sorted(pair)))


@given(seeds, st.integers(1, 3000), ratios)
def test_a_crop_stays_inside_the_series(seed, length, ratio):
    start, size = random_crop(jax.random.key(seed), jnp.int32(length), ratio=ratio)
    assert 1 <= size <= length
    assert 0 <= start <= length - size
    assert np.floor(ratio[0] * length - 0.5) <= size <= max(1, np.ceil(ratio[1] * length + 0.5))


def test_crops_reach_every_size_and_place():
    keys = jax.random.split(jax.random.key(0), 2000)
    start, size = jax.vmap(lambda key: random_crop(key, jnp.int32(10), ratio=(0.5, 1.0)))(keys)
    assert {(int(a), int(b)) for a, b in zip(start, size, strict=True)} == {(a, b) for b in range(5, 11) for a in range(11 - b)}


def test_views_never_show_the_padding():
    lengths = jnp.array([1, 5, 40, 64])
    series = jnp.where(jnp.arange(64)[None] < lengths[:, None], 1.0, jnp.nan)
    views = two_views(jax.random.key(1), series, lengths, size=32, ratio=(0.3, 1.0))
    assert views.values.shape == (4, 2, 1, 32)
    assert (np.asarray(views.values) == 1).all()
    assert (np.asarray(views.offset) == np.zeros((4, 1))).all()


def test_views_differ_and_repeat_with_the_key():
    series, lengths = jax.random.normal(jax.random.key(2), (3, 100)), jnp.full(3, 100)
    first, again, other = (two_views(jax.random.key(k), series, lengths, size=32, ratio=(0.5, 0.8)).values for k in (3, 3, 4))
    assert (np.asarray(first) == np.asarray(again)).all()
    assert not np.allclose(first, other)
    assert not np.allclose(first[:, 0], first[:, 1])


def test_series_end_to_end_give_the_views_of_padded_series():
    lengths = jnp.array([7, 100, 31])
    series = jax.random.normal(jax.random.key(2), (3, 100))
    flat = jnp.concatenate([one[:length] for one, length in zip(series, lengths, strict=True)])
    options = {"offsets": jnp.array([1.0, 2.0, 3.0]), "size": 32, "ratio": (0.5, 1.0)}
    padded = two_views(jax.random.key(3), series, lengths, **options)
    joined = two_views(jax.random.key(3), flat, lengths, starts=jnp.cumsum(lengths) - lengths, **options)
    np.testing.assert_array_equal(padded.values, joined.values)
    np.testing.assert_array_equal(joined.offset, [[1], [2], [3]])
