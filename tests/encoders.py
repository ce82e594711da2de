"""Untrained encoders of `smoke`, drawn once per process: tests of one worker share weights and compiled functions."""

import dataclasses
import functools
from typing import Any

from nutime_jax.config import ModelConfig, load_config
from nutime_jax.encoder import Encoder
from nutime_jax.loading import untrained_encoder


@functools.cache
def smoke_encoder(*overrides: str) -> Encoder:
    """Return the untrained encoder of `smoke`, one block deep unless `overrides` say otherwise. Tests do not change it."""
    config = load_config("smoke", ["model.depth=1", *overrides])
    return Encoder(config, _draw(config.model, config.seed))


@functools.cache
def _draw(model: ModelConfig, seed: int) -> Any:
    return untrained_encoder(dataclasses.replace(load_config("smoke"), model=model, seed=seed)).variables
