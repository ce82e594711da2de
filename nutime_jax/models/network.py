"""The NuTime encoder: windows, tokens of shape, mean and std, and a small Transformer over them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from nutime_jax.config import ModelConfig
from nutime_jax.core.masking import count_hidden, draw_mask, hidden_places
from nutime_jax.core.windows import count_windows
from nutime_jax.errors import InputError
from nutime_jax.models.backbones import ResidualBlock, with_mean
from nutime_jax.models.layers import Block, LayerNorm
from nutime_jax.models.positions import read_table, rotary_angles, sinusoidal_positions, token_places
from nutime_jax.models.tokens import WindowEmbedding

REMAT = {
    "none": None,
    # What the matrix products of weights give is kept; attention, dropout, norms and activations are computed again.
    "save_dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Only what goes into a block is kept.
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What the blocks keep for the way back, by name; numbers are the same up to rounding."""


class Encoding(NamedTuple):
    """Everything the encoder computes; under jit, what is not read costs nothing.

    layers: residual stream before the first block and after each, depth + 1 arrays (batch, 1 + windows, width); the
        first token is CLS, or, of a backbone without one, the mean of the others.
    normalised: the last of them after the final layer norm; its CLS token is the published feature.
    """

    layers: tuple[Float[Array, "batch tokens width"], ...]
    normalised: Float[Array, "batch tokens width"]


class NuTimeEncoder(nn.Module):
    """NuTime encoder. The default is the published model.

    config: options of the network; docs/configuration.md explains each.
    remat: activations that blocks recompute in the backward pass, see REMAT.
    """

    config: ModelConfig = ModelConfig()
    remat: str = "none"

    @nn.nowrap
    def count_tokens(self, length: int) -> int:
        """CLS and the windows of a series.

        Raises:
            InputError: the windows do not end where the series ends.
        """
        return 1 + sum(self._count_windows(length).values())

    @nn.nowrap
    def _count_windows(self, length: int) -> dict[int, int]:
        return {size: count_windows(length, window=size, stride=step) for size, step in self.config.window_specs}

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch channels time"],
        offset: Float[Array, "batch channels"] | None = None,
        *,
        train: bool = False,
        last: int | None = None,
        hidden: Bool[Array, "batch windows"] | None = None,
        filling: Float[Array, " width"] | None = None,
    ) -> Encoding:
        """Encodes series of any finite scale; see `Encoding` for what comes out.

        Args:
            offset: what was taken from a channel so that its shape fits float32; None is nothing.
            train: whether dropout and `mask_ratio` are active.
            last: how many tokens come out of the last block, CLS first; None is all. Where CLS alone is read, two thirds
                of that block need not be computed.
            hidden, filling: windows that are hidden whatever `mask_ratio` says, True where they are, and what stands in their place;
                given together.

        Raises:
            InputError: the windows do not end where the series ends, or there are too many.
        """
        config = self.config
        tokens = WindowEmbedding(config, name="embedding")(x, offset)
        count = tokens.shape[1] + 1
        if count > config.max_tokens:
            raise InputError(
                f"a length of {x.shape[-1]} makes {count} tokens, more than max_tokens {config.max_tokens}; "
                "shorten the series or raise model.max_tokens"
            )
        places = token_places(self._count_windows(x.shape[-1]), config.window_size)
        transformer = config.backbone == "transformer"
        if transformer:
            cls = self.param("cls", nn.initializers.normal(1e-6), (1, 1, config.width))
        # After the CLS token: weights are drawn in turn, and it is to be drawn as it is without a mask.
        if config.mask_ratio and config.mask_strategy == "learned":
            filling = self.param("mask_token", nn.initializers.normal(0.02), (config.width,))
        if config.mask_ratio and train:
            hidden = draw_mask(self.make_rng("dropout"), *tokens.shape[:2], share=config.mask_ratio, kind=config.mask_type)
        if hidden is not None and filling is not None:
            tokens = jnp.where(hidden[..., None], filling[None, None], tokens)
        if transformer:
            tokens = jnp.concatenate([jnp.broadcast_to(cls, (tokens.shape[0], 1, config.width)), tokens], axis=1)
            tokens = self._add_positions(tokens, places)
        else:
            tokens = with_mean(self._add_positions(tokens, places[1:]))
        if hidden is not None and filling is None:
            tokens = _seen(tokens, hidden, count_hidden(count - 1, config.mask_ratio))
        rotation = {"angles": rotary_angles(places, config.head_dim)} if config.pos_embedding == "rotary" else {}

        def run(block: Block | ResidualBlock, tokens: Array, count: int | None) -> Array:
            return block(tokens, train=train, count=count, **rotation)

        run = run if self.remat == "none" else nn.remat(run, policy=REMAT[self.remat], static_argnums=2)
        layers = [tokens]
        for i in range(config.depth):
            layers.append(run(self._block(f"block_{i}"), layers[-1], last if i == config.depth - 1 else None))
        return Encoding(tuple(layers), LayerNorm(name="norm")(layers[-1]))

    @nn.nowrap
    def _block(self, name: str) -> Block | ResidualBlock:
        return (ResidualBlock if self.config.backbone == "resnet" else Block)(self.config, name=name)

    @nn.nowrap
    def _add_positions(self, tokens: Array, places: np.ndarray) -> Array:
        config = self.config
        shape = (config.max_tokens, config.width)
        if config.pos_embedding == "sinusoidal":
            # A variable, not a constant: converted weights bring their own table, to the last bit.
            table = self.variable("constants", "positions", lambda: jnp.asarray(sinusoidal_positions(*shape))).value
        elif config.pos_embedding == "learned":
            table = self.param("positions", nn.initializers.normal(0.02), shape)
        else:
            return tokens
        return tokens + read_table(table, places)[None].astype(tokens.dtype)


def _seen(tokens: Float[Array, "batch tokens width"], hidden: Bool[Array, "batch windows"], count: int) -> Float[Array, "batch seen width"]:
    """The CLS token and those of windows that are not hidden, where `count` of each series are."""
    places = 1 + hidden_places(~hidden, hidden.shape[1] - count)
    return jnp.concatenate([tokens[:, :1], jnp.take_along_axis(tokens, places[..., None], axis=1)], axis=1)
