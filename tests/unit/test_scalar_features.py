"""Features of a scalar beside their formulas in float64, and at the ends of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from nutime_jax.core.scalars import log_magnitude, periodic_features, piecewise_linear, quantile_edges, symmetric_edges
from nutime_jax.errors import InputError

RNG = np.random.default_rng(0)
# The float32 number that a product or a difference is rounded to: what the features are of.
X = np.float32(np.concatenate([[0.0], RNG.normal(size=200), 100 * RNG.normal(size=200)]))


def hats(x, edges):
    """Bin by bin, in float64; a bin without width is a step."""
    found = np.zeros((len(x), len(edges) - 1))
    for row, one in enumerate(x.astype(np.float64)):
        for number, (low, high) in enumerate(zip(edges[:-1].astype(np.float64), edges[1:].astype(np.float64), strict=True)):
            found[row, number] = np.clip((one - low) / (high - low), 0, 1) if high > low else float(one >= high)
    return found


def test_periodic_features_are_those_of_the_published_implementation(golden):
    with np.load(golden / "periodic.npz", allow_pickle=False) as file:
        ours = periodic_features(jnp.asarray(file["x"][:, 0]), jnp.asarray(file["coefficients"][0]))
        np.testing.assert_allclose(jnp.moveaxis(ours, -1, 1), file["y"], rtol=0, atol=1e-5)


def test_piecewise_features_and_edges_are_those_of_the_published_implementation(golden):
    with np.load(golden / "piecewise_linear.npz", allow_pickle=False) as file:
        edges = quantile_edges(file["train"], 8)
        np.testing.assert_allclose(edges, file["edges"][0], rtol=1e-6)
        ours = piecewise_linear(jnp.asarray(file["x"][:, 0]), jnp.asarray(edges))
        np.testing.assert_allclose(jnp.moveaxis(ours, -1, 1), file["y"], rtol=0, atol=1e-5)


def test_periodic_features_follow_the_formula():
    coefficients = np.float32([0.027, -0.3, 1.0])
    angles = 2 * np.pi * X[:, None].astype(np.float64) * coefficients.astype(np.float64)
    # A few hundred turns at most, of which float32 knows 3e-5.
    np.testing.assert_allclose(
        periodic_features(jnp.asarray(X), jnp.asarray(coefficients)), np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=3e-4
    )


@pytest.mark.parametrize("edges", [[-200, -1, 0, 0.5, 300], [-1, 0, 0, 0, 2], [0, 0, 1]])
def test_piecewise_features_follow_the_formula(edges):
    edges = np.float32(edges)
    np.testing.assert_allclose(piecewise_linear(jnp.asarray(X), jnp.asarray(edges)), hats(X, edges), atol=1e-6)


@given(drawn.arrays(np.float32, 12, elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_edges_ascend_and_bins_hold_as_many_values_each(values):
    if len(set(values.tolist())) < 2:
        with pytest.raises(InputError, match="bins cannot be fitted to 12 scalars that all are"):
            quantile_edges(values, 4)
        return
    edges = quantile_edges(values, 4)
    assert (np.diff(edges) >= 0).all()
    assert (edges[0], edges[-1]) == (values.min(), values.max())
    features = np.asarray(piecewise_linear(jnp.asarray(values), jnp.asarray(edges)))
    assert ((features >= 0) & (features <= 1)).all()
    assert (np.diff(features[np.argsort(values)], axis=0) >= -1e-6).all()
    if len(set(values.tolist())) == 12 and len(set(edges.tolist())) == 5:
        counts = np.histogram(values.astype(np.float64), edges.astype(np.float64))[0]
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("values", "bins", "message"),
    [
        ([1.0, 2.0], 0, "bins is 0; choose 1 or more"),
        ([], 4, "bins cannot be fitted to 0 scalars \\(empty\\); pass finite scalars"),
        ([1.0, np.nan], 4, "bins cannot be fitted to 2 scalars \\(not all finite\\); pass finite scalars"),
        ([3.0, 3.0, 3.0], 4, "bins cannot be fitted to 3 scalars that all are 3; pass scalars that differ"),
    ],
)
def test_edges_that_cannot_be_are_rejected(values, bins, message):
    with pytest.raises(InputError, match=message):
        quantile_edges(np.array(values), bins)


def test_edges_without_data_know_both_signs_and_eight_decades():
    edges = symmetric_edges(16)
    np.testing.assert_allclose(edges, -edges[::-1], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(edges[-3:], [1e4 * 10 ** (-k * 8.301 / 8) for k in (2, 1, 0)], rtol=1e-3)
    assert len(set(edges.tolist())) == 17


def test_log_magnitude_follows_the_formula():
    x = np.float32(np.concatenate([X, 10.0 ** np.arange(-12, 30), -(10.0 ** np.arange(-12, 30))]))
    clipped = x.astype(np.float64).clip(-1e16, 1e16)
    np.testing.assert_allclose(log_magnitude(jnp.asarray(x)), np.arcsinh(clipped / 1e-4) / np.arcsinh(1e8), rtol=1e-5)
    assert float(log_magnitude(jnp.float32(1e4))) == pytest.approx(1)


FORMS = {
    "periodic": (periodic_features, np.float32([0.027, -3.0, 1e3])),
    "piecewise": (piecewise_linear, np.float32([-1e38, -1.0, 0.0, 0.0, 1e-3, 1e38])),
    "log": (lambda x, _: log_magnitude(x)[..., None], np.zeros(0, np.float32)),
}
pulled = {
    name: jax.jit(lambda x, table, form=form: (form(x, table), *jax.grad(lambda *a: form(*a).sum(), (0, 1))(x, table)))
    for name, (form, _) in FORMS.items()
}


@pytest.mark.parametrize("name", FORMS)
@given(x=drawn.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_every_finite_float_gives_finite_features_and_gradients(name, x):
    for found in pulled[name](jnp.asarray(x), jnp.asarray(FORMS[name][1])):
        assert np.isfinite(found).all()
