import numpy as np
import pytest

from nutime_jax.errors import InputError
from nutime_jax.evaluation.channels import channel_moments, select_channels


def cases(seed=0, count=6, scales=(1, 5, 0.1, 3)):
    rng = np.random.default_rng(seed)
    return [(np.array(scales)[:, None] * rng.normal(size=(len(scales), rng.integers(20, 40))) + 7).astype(np.float32) for _ in range(count)]


def test_moments_are_those_of_all_points():
    series = cases()
    mean, covariance = channel_moments(series)
    points = np.concatenate(series, axis=1).astype(np.float64)
    np.testing.assert_allclose(mean, points.mean(1), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(points, ddof=0), rtol=1e-9)


def test_channels_that_vary_most_are_kept_as_they_are():
    series, others = cases(), cases(1)
    selection = select_channels(series, how="variance", keep=2)
    for one, kept in zip(others, selection.apply(others), strict=True):
        np.testing.assert_array_equal(kept, one[[1, 3]])


def test_components_are_those_of_the_standardised_channels():
    """Against a singular value decomposition in float64, up to the sign of an axis; float32 results, 1e-5."""
    series, others = cases(), cases(1)
    points = np.concatenate(series, axis=1).astype(np.float64)
    mean, std = points.mean(1, keepdims=True), points.std(1, keepdims=True)
    axes = np.linalg.svd((points - mean) / std, full_matrices=False)[0][:, :3].T
    for one, kept in zip(others, select_channels(series, how="pca", keep=3).apply(others), strict=True):
        expected = axes @ ((one - mean) / std)
        signs = np.sign((expected * kept).sum(1, keepdims=True))
        np.testing.assert_allclose(kept, signs * expected, atol=1e-5 * np.abs(expected).max())


def test_units_do_not_touch_components():
    series = cases()
    factor = np.array([1e3, 1, 1e-3, 8], np.float32)[:, None]
    one = select_channels(series, how="pca", keep=2).apply(series)
    other = select_channels([factor * case for case in series], how="pca", keep=2).apply([factor * case for case in series])
    np.testing.assert_allclose(one[0], other[0], atol=1e-3)


@pytest.mark.parametrize("how", ["variance", "pca"])
def test_odd_channels_are_taken(how):
    constant = [np.full((3, 10), 2.0, np.float32)] * 2
    assert select_channels(constant, how=how, keep=2).apply(constant)[0].shape == (2, 10)
    single = [np.arange(5, dtype=np.float32)[None]]
    assert select_channels(single, how=how, keep=1).apply(single)[0].shape == (1, 5)


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        ([], {"keep": 1}, "no training cases"),
        (cases(), {"keep": 5}, "5 channels cannot be kept of 4; keep 1 to 4"),
        (cases(), {"keep": 0}, "0 channels cannot be kept"),
        (cases(), {"keep": 1, "how": "random"}, "rule 'random' is unknown"),
    ],
)
def test_what_cannot_be_selected_is_refused(series, options, message):
    with pytest.raises(InputError, match=message):
        select_channels(series, **options)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(InputError, match="case 1 has 2 channels; the selection was fitted on 4"):
        select_channels(cases(), keep=2).apply([cases()[0], np.zeros((2, 9), np.float32)])
