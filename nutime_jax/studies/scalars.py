"""What an untrained encoder makes of a single number: the embedding of scalars alone, of any kind, by the `model` section."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nutime_jax.config import ModelConfig
from nutime_jax.errors import InputError
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS, check_scalar_encoder


class ScalarEmbedding:
    """The scalar encoder of a model at random weights.

    Raises:
        InputError: the model embeds no scalars.
    """

    def __init__(self, model: ModelConfig):
        check_scalar_encoder(model)
        if model.window_stats == "none":
            raise InputError("the model embeds no scalars (statistics is 'none'); there is nothing to measure")
        module = SCALAR_ENCODERS[model.scalar_encoder](model, None)
        self._init, self._apply = jax.jit(module.init), jax.jit(module.apply)

    def draw(self, seed: int) -> Any:
        """Weights of a seed."""
        return self._init(jax.random.key(seed), jnp.ones(1))

    def embed(self, variables: Any, x: np.ndarray) -> np.ndarray:
        """Embeddings of scalars, (scalars,) -> (scalars, dim)."""
        with jax.default_matmul_precision("highest"):
            return np.asarray(self._apply(variables, jnp.asarray(x, jnp.float32)), np.float64)
