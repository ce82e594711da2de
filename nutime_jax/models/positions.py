"""Positions of tokens in a series."""

import numpy as np


def sinusoidal_positions(tokens: int, width: int) -> np.ndarray:
    """Fixed sine-cosine positions, shape (tokens, width), sines at even places; rounded to float32 as the release's are."""
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10000.0) / width))
    angle = np.arange(tokens, dtype=np.float32)[:, None] * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(tokens, -1)[:, :width]
