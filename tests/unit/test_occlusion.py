"""Occlusion finds the window that a classifier looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from nutime_jax.embedding import resize_series
from nutime_jax.errors import InputError
from nutime_jax.evaluation.explanations import attention_maps, occlude
from nutime_jax.report.plots import plot_attention, plot_occlusion
from tests.encoders import smoke_encoder


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


def test_attention_is_that_of_numpy():
    """Weights of the first block are the softmax of scaled scores in float64; each query's weights sum to 1."""
    encoder = smoke_encoder()
    case = np.random.default_rng(0).normal(size=(2, 70)).cumsum(1)
    found = attention_maps(encoder, case)
    model, length = encoder.config.model, encoder.lengths_of(70)[0]
    tokens = 1 + length // model.window_size
    assert found.weights.shape == (2, model.depth, model.num_heads, tokens, tokens)
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
    variables = jax.tree.map(np.float64, encoder.variables["params"]["block_0"])
    views = resize_series(case, length).astype(np.float32)
    x = np.asarray(encoder.network.apply(jax.tree.map(jnp.asarray, encoder.variables), jnp.asarray(views)[:, None]).layers[0], np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * variables["attention_norm"]["scale"] + variables["attention_norm"]["bias"]
    q, k, _ = (x @ variables["attention"]["qkv"]["kernel"]).reshape(2, tokens, 3, model.num_heads, -1).transpose(2, 0, 3, 1, 4)
    expected = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(model.head_dim), axis=-1)
    np.testing.assert_allclose(found.weights[:, 0], expected, atol=1e-4)
    assert len(plot_attention(found).axes) == 5  # series and map of two channels, and the colour bar
    with pytest.raises(InputError, match=r"the series has 5000 time points, and data.max_length is \d+; pass a part of it"):
        attention_maps(encoder, np.zeros(5000))
