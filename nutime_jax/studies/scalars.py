"""What an untrained encoder makes of a single number: the embedding of scalars alone, of any kind, by the `model` section."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nutime_jax.errors import InputError
from nutime_jax.models.configuration import build_encoder
from nutime_jax.models.layers import LayerNorm, Linear

ROWS = 512
"""Scalars embedded at once: one program, whatever their number."""
EMBEDDING = "embedding"
"""The part of an encoder whose one child that is no layer embeds the mean and the std of a window."""
LAYERS = (Linear, LayerNorm.func)


class ScalarEmbedding:
    """The scalar encoder of a model at random weights.

    A window of one value has it as its mean. What the encoder of scalars gives for the mean of such windows is taken from a
    pass through the whole network: this knows of no kind of scalar encoder, of none of its parameters, and of no name.

    Raises:
        InputError: the model embeds no scalars.
    """

    def __init__(self, model: ConfigDict):
        # Weights are drawn by their names: with fewer blocks the network has the same embedding.
        self._network = build_encoder(ConfigDict({**model, "depth": 1}))
        self._variables = jax.jit(self._network.init)
        self._apply = jax.jit(partial(_capture, self._network))
        shapes = jax.eval_shape(self._apply, jax.eval_shape(self._network.init, jax.random.key(0), self._windows(1)), self._windows(1))
        if not shapes:
            raise InputError("the model embeds no scalars (statistics is 'none'); there is nothing to measure")

    def draw(self, seed: int) -> Any:
        """Weights of a seed."""
        return self._variables(jax.random.key(seed), self._windows(1))

    def embed(self, variables: Any, x: np.ndarray) -> np.ndarray:
        """Embeddings of scalars, (scalars,) -> (scalars, dim)."""
        padded = np.zeros(-(-len(x) // ROWS) * ROWS, np.float32)
        padded[: len(x)] = x
        with jax.default_matmul_precision("highest"):
            parts = [self._apply(variables, self._windows(ROWS) * part[:, None, None]) for part in padded.reshape(-1, ROWS)]
        return np.concatenate([np.asarray(found, np.float64) for part in parts for found in part.values()])[: len(x)]

    def _windows(self, count: int) -> jax.Array:
        return jnp.ones((count, 1, self._network.window), jnp.float32)


def _capture(network, variables, windows) -> dict[str, jax.Array]:
    """Name of what embeds scalars -> what it gives for the means, (windows, dim); empty where there is nothing."""

    def wanted(module, method: str) -> bool:
        return len(module.path) == 2 and module.path[0] == EMBEDDING and not isinstance(module, LAYERS) and method == "__call__"

    _, state = network.apply(variables, windows, capture_intermediates=wanted, mutable=["intermediates"])
    found = state.get("intermediates", {}).get(EMBEDDING, {})
    # (windows, channels, windows of the series, mean and std, dim)
    return {name: outputs["__call__"][0][:, 0, 0, 0] for name, outputs in list(found.items())[:1]}
