"""A stand-in for an encoder: a random projection in NumPy behind the same `embed`, for tests of conventions."""

import functools

import numpy as np

from nutime_jax.config import load_config
from nutime_jax.data.inputs import clean_cases
from nutime_jax.encoder import Encoder

LENGTH, WIDTH = 64, 16


class StubEncoder(Encoder):
    """Features that keep what tests of estimators rely on: shape, level and scale of a series, in few milliseconds.

    The features of a case do not depend on the other cases. CLS and mean token, and the layers, have projections of their own.
    """

    def embed(self, X, *, layer=None, pooling=None, channels="concat", batch_size=256):
        """Return float32 (cases, features), as `Encoder.embed`."""
        pooling = self.choose_pooling(layer=layer, pooling=pooling)
        self._check_options(layer=layer, pooling=pooling, channels=channels, batch_size=batch_size, tokens=False)
        features = []
        for case in clean_cases(X):
            rows = np.stack([project(channel, layer=layer, pooling=pooling) for channel in case])
            features.append(rows.mean(0) if channels == "mean" else rows.reshape(-1))
        return np.float32(features)


def project(channel, *, layer, pooling):
    """Return the features of one channel, (WIDTH,) per token: shape, spectrum, mean and std, projected at random."""
    resized = np.interp(np.linspace(0, len(channel) - 1, LENGTH), np.arange(len(channel)), np.asarray(channel, np.float64))
    mean, std = resized.mean(), resized.std()
    shape = (resized - mean) / (std or 1)
    scalars = [np.sign(mean) * np.log1p(abs(mean)), np.log1p(std)]
    values = np.concatenate([shape / 8, np.abs(np.fft.rfft(shape)) / 8, np.multiply(4, scalars)])
    tokens = ("cls", "mean") if pooling in ("cls+mean", "all_layers") else (pooling,)
    return np.concatenate([(draw_projections(layer, len(values))[token] * values).sum(1) for token in tokens])


@functools.cache
def draw_projections(layer, size):
    rng = np.random.default_rng(0 if layer is None else 1 + layer)
    return {token: rng.normal(size=(WIDTH, size)) for token in ("cls", "mean")}


def make_stub():
    """Return a stub with the configuration of `smoke`, one block deep, and no weights but the CLS token."""
    return StubEncoder(load_config("smoke", ["model.depth=1"]), {"params": {"cls": np.zeros((1, 1, WIDTH), np.float32)}})
