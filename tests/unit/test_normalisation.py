"""Normalisation over a dataset: statistics of training series, part of the encoder, applied to all that it receives."""

import numpy as np
import pytest

from nutime_jax import load_encoder
from nutime_jax.data.series import Cases, channel_statistics
from nutime_jax.errors import InputError
from nutime_jax.evaluation.comparison import compare
from nutime_jax.evaluation.features import Task
from nutime_jax.export import export_encoder
from tests.encoders import smoke_encoder


def sample(seed, *, cases=6):
    """Cases of three channels at other levels and scales, of unequal lengths; the last channel is constant."""
    rng = np.random.default_rng(seed)
    lengths = 30 + np.arange(cases)
    return [
        np.stack([rng.normal(size=time), 1e6 + 1e-2 * rng.normal(size=time), np.full(time, 7.0)]) * [[1e-3], [1], [1]] for time in lengths
    ]


def by_hand(train, test):
    """Each case of `test`, normalised by all time points of `train`, in float64."""
    joined = np.concatenate(train, axis=1)
    std = joined.std(1)
    std[2] = 1
    return [(case - joined.mean(1)[:, None]) / std[:, None] for case in test]


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_statistics_are_those_of_all_time_points(scale):
    series = [scale * case for case in sample(0)]
    joined = np.concatenate(series, axis=1)
    means, stds = channel_statistics(series)
    np.testing.assert_allclose(means, joined.mean(1), rtol=1e-13)
    np.testing.assert_allclose(stds[:2], joined[:2].std(1), rtol=1e-6)
    assert stds[2] == 1


def test_an_encoder_normalises_as_by_hand_and_keeps_the_statistics(tmp_path):
    plain, train, test = smoke_encoder(), sample(0), sample(1)
    encoder = plain.with_options(normalise="dataset").fit_normalisation(train)
    features = encoder.embed(test)
    np.testing.assert_allclose(features, plain.embed(by_hand(train, test)), atol=2e-5)
    assert np.abs(features - plain.embed(test)).max() > 0.1
    np.testing.assert_array_equal(np.stack(list(encoder.embed(iter(test)))), features)
    np.testing.assert_array_equal(load_encoder(encoder.save(tmp_path / "encoder")).embed(test), features)
    assert encoder.fit_normalisation(test) is encoder
    np.testing.assert_array_equal(encoder.with_options(normalise="none").embed(test), plain.embed(test))
    assert plain.fit_normalisation(train) is plain


def test_what_cannot_be_normalised_is_one_sentence(tmp_path):
    encoder, cases = smoke_encoder().with_options(normalise="dataset"), sample(0)
    with pytest.raises(InputError, match=r"its statistics are not fitted; call encoder\.fit_normalisation\(training series\)"):
        encoder.embed(cases)
    with pytest.raises(InputError, match="a case has 2 channels, and the normalisation was fitted on 3; pass as many"):
        encoder.fit_normalisation(cases).embed([case[:2] for case in cases])
    with pytest.raises(InputError, match="a program does not normalise; export with normalise='none'"):
        export_encoder(encoder, tmp_path / "exported")
    labelled = Cases(cases, np.array(["a", "b"] * 3))
    with pytest.raises(InputError, match="statistics would include the cases of the scored fold; remove folds"):
        compare({"encoder": encoder}, Task("mine", labelled, None), folds=2)
    with pytest.raises(InputError, match=r"evaluation\.normalise"):
        encoder.with_options(normalise="series")
