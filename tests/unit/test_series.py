import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from nutime_jax.data.series import centre_to_float32, clean_block, clean_series, difference, pad_series, split_long_series
from nutime_jax.embedding import resize_series
from nutime_jax.errors import InputError

nan = np.nan


@pytest.mark.parametrize(
    ("given_series", "cleaned"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([5], [[5]]),
        ([nan, 1, 2, nan, nan], [[1, 2]]),
        ([0, nan, nan, 3], [[0, 1, 2, 3]]),
        ([[nan, 1, nan], [2, nan, 4]], [[1, 1, 1], [2, 3, 4]]),
        ([[nan, nan], [1, 2]], [[0, 0], [1, 2]]),
        ([[nan, 1, nan], [nan, nan, nan]], [[1], [0]]),
        (np.array([True, False]), [[1, 0]]),
        (np.arange(6, dtype=np.int8).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_the_rule_for_missing_values(given_series, cleaned):
    result = clean_series(np.asarray(given_series))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.asarray(cleaned, np.float32))


@given(st.floats(-1e12, 1e12), st.floats(-4, 4), st.integers(0, 2**31 - 1))
def test_a_small_signal_keeps_its_shape_on_any_offset(level, decade, seed):
    signal = np.random.default_rng(seed).normal(size=50) * 10.0**decade
    x = level + signal
    (cleaned,) = clean_series(x)
    values, offset = centre_to_float32(cleaned)
    assert values.dtype == offset.dtype == np.float32
    # Two float32 together: the rounding of what the rounded offset leaves, or that of a series that was not taken apart.
    tolerance = max(2.0**-24 * (np.ptp(x) + np.abs(x).max() * 2.0**-23), np.ptp(x) * 2.0**-20)
    np.testing.assert_allclose(values.astype(np.float64) + np.float64(offset), x, rtol=0, atol=tolerance)


@pytest.mark.parametrize("x", [np.float32([1e6, 1e6 + 1]), np.full(3, 0.1), np.array([1.0, 2.0, 1e30]), np.array([101325, 101326])])
def test_what_fits_float32_stays_exact(x):
    values, offset = centre_to_float32(clean_series(x)[0])
    np.testing.assert_array_equal(values.astype(np.float64) + np.float64(offset), x.astype(np.float32))


@given(drawn.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_an_offset_is_taken_out_of_a_float32_series_without_rounding(x):
    values, offset = centre_to_float32(x)
    if offset == 0:
        assert values is x or not x.any()
    else:
        np.testing.assert_array_equal(values.astype(np.float64) + np.float64(offset), x)


@pytest.mark.parametrize(("level", "std"), [(300, 0.01), (1e6, 1), (1e5, 0.3)])
def test_resizing_keeps_the_shape_of_a_float32_series_on_any_level(level, std):
    x = (level + std * np.random.default_rng(0).normal(size=200)).astype(np.float32)
    resized = resize_series([clean_series(x)[0]], 512)[0]
    centres = np.clip((np.arange(512) + 0.5) * (200 / 512) - 0.5, 0, 199)
    expected = np.interp(centres, np.arange(200), x.astype(np.float64))
    assert np.abs(resized - expected).max() < 2e-5 * std


def test_the_input_is_not_touched():
    x = np.array([nan, 1.0, nan, 2.0])
    x.setflags(write=False)
    clean_series(x)
    np.testing.assert_array_equal(x, [nan, 1, nan, 2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.array(["a"]), "convert them to real numbers"),
        (np.array([1j]), "convert them to real numbers"),
        (np.array([None]), "convert them to real numbers"),
        (np.zeros((1, 1, 1)), "has shape"),
        (np.array(1.0), "has shape"),
        (np.array([nan, nan]), "no value that is not missing"),
        (np.zeros(0), "no value that is not missing"),
        (np.array([1.0, np.inf]), "infinite"),
        (np.array([1e39]), "beyond 3.4e38"),
    ],
)
def test_what_is_no_series_is_rejected_by_name(wrong, message):
    with pytest.raises(InputError, match=f"case 7.*{message}"):
        clean_series(wrong, name="case 7")


@given(st.integers(1, 500), st.integers(1, 100))
def test_pieces_are_few_equal_and_whole(length, most):
    x = np.arange(length, dtype=np.float32)
    pieces = split_long_series(x, most)
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == -(-length // most)
    np.testing.assert_array_equal(np.concatenate(pieces), x)


def test_padding_keeps_series_and_lengths():
    padded, lengths = pad_series([np.ones(2, np.float32), np.ones(4, np.float32)], 5)
    np.testing.assert_array_equal(padded, [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    np.testing.assert_array_equal(lengths, [2, 4])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.int8, bool])
def test_a_block_is_cleaned_as_its_cases_are(dtype):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((9, 2, 5)) < 0.5, 3 * rng.normal(size=(9, 2, 5)), 0)
    if dtype == np.float64:
        x[1] += 1e7  # float32 would lose its shape
        x[2, 0] = 1e-60
        x[3] = 0.1
    if np.dtype(dtype).kind == "f":
        x[4, :, 0] = x[5, 1, 2] = nan
    x = x.astype(dtype)
    cleaned = clean_block(x)
    for case, one in zip(cleaned, x, strict=True):
        expected = clean_series(one)
        assert case.dtype == expected.dtype
        np.testing.assert_array_equal(case, expected)
    assert not any(np.shares_memory(case, x) for case in cleaned)


def test_a_block_names_its_wrong_case():
    x = np.ones((3, 1, 4))
    for wrong, message in [(nan, "has no value"), (np.inf, "infinite"), (1e39, "beyond")]:
        x[2] = wrong
        with pytest.raises(InputError, match=f"case 12 .*{message}"):
            clean_block(x, first=10)


@given(drawn.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_differences_are_those_of_the_formula(x):
    found = difference(x)
    largest = float(np.finfo(np.float32).max)
    expected = np.diff(x.astype(np.float64)).clip(-largest, largest).astype(np.float32) if len(x) > 1 else np.zeros(1, np.float32)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
