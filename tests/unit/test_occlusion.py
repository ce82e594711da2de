"""Occlusion finds the window that a classifier looks at."""

import numpy as np
import pytest

from nutime_jax.errors import InputError
from nutime_jax.evaluation.occlusion import occlude
from nutime_jax.report.plots import plot_occlusion


class PeakClassifier:
    """The probability of "peak" is the maximum of the second channel."""

    classes_ = np.array(["flat", "peak"])

    def predict_proba(self, X):
        peak = np.array([case[1].max() for case in X])
        return np.stack([1 - peak, peak], axis=1)


@pytest.fixture
def case():
    case = np.zeros((2, 50))
    case[1, 20] = 0.9
    return case


@pytest.mark.parametrize(("size", "stride", "starts"), [(None, None, 24), (10, 10, 5), (20, 20, 3)])
def test_the_decisive_window_is_found(case, size, stride, starts):
    found = occlude(PeakClassifier(), case, size=size, stride=stride)
    assert (found.label, found.probability) == ("peak", pytest.approx(0.9))
    assert found.drops.shape == (2, starts)
    covers = (found.starts <= 20) & (found.starts + found.size > 20)
    np.testing.assert_allclose(found.drops, [np.zeros(starts), 0.9 * covers], atol=1e-6)
    assert found.starts[-1] + found.size == 50
    np.testing.assert_allclose(found.case, case)
    assert len(plot_occlusion(found).axes) == 3  # two channels and the colour bar


def test_a_window_becomes_the_line_between_its_neighbours():
    seen = []

    class Recorder(PeakClassifier):
        def predict_proba(self, X):
            seen.extend(X)
            return super().predict_proba(X)

    occlude(Recorder(), np.stack([np.arange(6.0), [0, 5, 0, 9, 4, 1]]), size=2, stride=2)
    np.testing.assert_allclose([case[1] for case in seen[4:]], [[0, 0, 0, 9, 4, 1], [0, 5, 5 - 1 / 3, 5 - 2 / 3, 4, 1], [0, 5, 0, 9, 9, 9]])


@pytest.mark.parametrize(("options", "message"), [({"size": 50}, "choose 1 to 49"), ({"size": 5, "stride": 6}, "leaves gaps")])
def test_windows_that_do_not_fit_are_rejected(case, options, message):
    with pytest.raises(InputError, match=message):
        occlude(PeakClassifier(), case, **options)
