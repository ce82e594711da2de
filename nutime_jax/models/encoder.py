"""The NuTime encoder: windows, tokens of shape, mean and std, and a small Transformer over them."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from nutime_jax.errors import InputError
from nutime_jax.models.embedding import WindowEmbedding
from nutime_jax.models.layers import Block, LayerNorm
from nutime_jax.models.positions import read_table, rotary_angles, sinusoidal_positions, token_places
from nutime_jax.models.resnet import ResidualBlock, with_mean
from nutime_jax.models.scalars import build_scalars
from nutime_jax.token_masks import count_hidden, draw_mask, hidden_places
from nutime_jax.windows import count_windows

REMAT = {
    "none": None,
    # What the matrix products of weights give is kept; attention, dropout, norms and activations are computed again.
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Only what goes into a block is kept.
    "everything": jax.checkpoint_policies.nothing_saveable,
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
    """NuTime encoder. The defaults are the released model: 2,395,328 parameters.

    window: points a window (and a token).
    width, depth, heads, head_dim, mlp_dim: the Transformer; QKV has no bias, the output projection has.
    dropout: on attention weights, projections and MLP, in training only.
    max_tokens: CLS and windows of the longest series, and rows of a table of positions; of windows side by side, that series
        has (max_tokens - 1) * window points.
    scalars: what embeds mean and std, a name of `models.scalars.SCALARS`; scale_dim: its width.
    scales, weighted_scales, trained_scales, scale_eps, locations: of "nme", see `models.scalars.NME`.
    frequency_init, frequency_scale, trained_frequencies: of "periodic", see `models.scalars.Periodic`.
    bins: of "piecewise", see `models.scalars.Piecewise`.
    normalisation: "window", or "instance" (shape normalised over the whole series; the release's ablation).
    statistics: what is embedded beside the shape: those of the "window", of the "instance", or "none".
    fusion: how the channels of a series become one token: "linear" (published; never pretrained) or "sum".
    positions: how blocks are told the places of tokens: "sinusoidal" (a fixed table, published), "learned" (a trained table;
        what lies beyond the tokens of training stays as drawn), "rotary" (queries and keys are turned) or "none". See
        `models.positions`.
    stride: points from the start of a window to that of the next; 0 is window. The last window ends where the series ends.
    windows: further sizes of windows. Their tokens follow those of `window`, size by size, and overlap by the same share of
        themselves; the mean is over all. See `embedding.WindowEmbedding` for what sizes share.
    backbone: what stands over the tokens: a "transformer", or a "resnet" of `depth` residual blocks of convolutions over time
        (`models.resnet`), which has no CLS token but the mean of all; heads, head_dim and mlp_dim are not looked at.
    mask: share of the windows that are hidden in training, of every view anew, as dropout is active: in a target network
        and in fine-tuning, too. 0, as released, hides none, and has no weights.
    mask_kind: which are, "random" ones or a "block" of neighbours, see `token_masks.draw_mask`.
    mask_fill: what stands for them: a "learned" vector, in their positions, or nothing ("drop": the tokens that are left,
        of which there are always as many, keep their positions).
    remat: what blocks compute again on the way back, to save memory, see REMAT.
    """

    window: int = 16
    width: int = 128
    depth: int = 6
    heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 512
    dropout: float = 0.1
    max_tokens: int = 1024
    scales: Sequence[float] = tuple(10.0**k for k in range(-4, 5))
    scale_dim: int = 32
    weighted_scales: bool = True
    scalars: str = "nme"
    trained_scales: bool = False
    scale_eps: Literal["absolute", "relative"] = "absolute"
    locations: Sequence[float] = ()
    frequency_init: Literal["normal", "log-linear"] = "normal"
    frequency_scale: float = 0.027
    trained_frequencies: bool = False
    bins: int = 32
    normalisation: Literal["window", "instance"] = "window"
    statistics: Literal["window", "instance", "none"] = "window"
    fusion: Literal["linear", "sum"] = "linear"
    positions: Literal["sinusoidal", "learned", "rotary", "none"] = "sinusoidal"
    stride: int = 0
    windows: Sequence[int] = ()
    backbone: Literal["transformer", "resnet"] = "transformer"
    mask: float = 0.0
    mask_kind: Literal["random", "block"] = "random"
    mask_fill: Literal["learned", "drop"] = "learned"
    remat: Literal["none", "products", "everything"] = "none"

    @property
    def step(self) -> int:
        """Points from the start of a window to that of the next."""
        return self.stride or self.window

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(points a window, points from one to the next) of each size of windows, `window` first."""
        return tuple((size, size * self.step // self.window) for size in (self.window, *self.windows))

    @property
    def shortest(self) -> int:
        """Points of a series that windows of every size fill; few, though not always the fewest."""
        return math.lcm(self.window, *self.windows)

    @nn.nowrap
    def count_tokens(self, length: int) -> int:
        """CLS and the windows of a series.

        Raises:
            InputError: the windows do not end where the series ends.
        """
        return 1 + sum(self._count_windows(length).values())

    @nn.nowrap
    def _count_windows(self, length: int) -> dict[int, int]:
        return {size: count_windows(length, window=size, stride=step) for size, step in self.sizes}

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
            train: whether dropout and `mask` are active.
            last: how many tokens come out of the last block, CLS first; None is all. Where CLS alone is read, two thirds
                of that block need not be computed.
            hidden, filling: windows that are hidden whatever `mask` says, True where they are, and what stands in their place;
                given together.

        Raises:
            InputError: the windows do not end where the series ends, or there are too many.
        """
        embedding = WindowEmbedding(
            width=self.width,
            sizes=self.sizes,
            scalars=partial(build_scalars, self),
            normalisation=self.normalisation,
            statistics=self.statistics,
            fusion=self.fusion,
            name="embedding",
        )
        tokens = embedding(x, offset)
        count = tokens.shape[1] + 1
        if count > self.max_tokens:
            raise InputError(
                f"a length of {x.shape[-1]} makes {count} tokens, more than max_tokens {self.max_tokens}; "
                "shorten the series or raise model.max_tokens"
            )
        places = token_places(self._count_windows(x.shape[-1]), self.window)
        transformer = self.backbone == "transformer"
        if transformer:
            cls = self.param("cls", nn.initializers.normal(1e-6), (1, 1, self.width))
        # After the CLS token: weights are drawn in turn, and it is to be drawn as it is without a mask.
        if self.mask and self.mask_fill == "learned":
            filling = self.param("mask_token", nn.initializers.normal(0.02), (self.width,))
        if self.mask and train:
            hidden = draw_mask(self.make_rng("dropout"), *tokens.shape[:2], share=self.mask, kind=self.mask_kind)
        if hidden is not None and filling is not None:
            tokens = jnp.where(hidden[..., None], filling[None, None], tokens)
        if transformer:
            tokens = jnp.concatenate([jnp.broadcast_to(cls, (tokens.shape[0], 1, self.width)), tokens], axis=1)
            tokens = self._add_positions(tokens, places)
        else:
            tokens = with_mean(self._add_positions(tokens, places[1:]))
        if hidden is not None and filling is None:
            tokens = _seen(tokens, hidden, count_hidden(count - 1, self.mask))
        rotation = {"angles": rotary_angles(places, self.head_dim)} if self.positions == "rotary" else {}

        def run(block: Block | ResidualBlock, tokens: Array, count: int | None) -> Array:
            return block(tokens, train=train, count=count, **rotation)

        run = run if self.remat == "none" else nn.remat(run, policy=REMAT[self.remat], static_argnums=2)
        layers = [tokens]
        for i in range(self.depth):
            layers.append(run(self._block(f"block_{i}"), layers[-1], last if i == self.depth - 1 else None))
        return Encoding(tuple(layers), LayerNorm(name="norm")(layers[-1]))

    @nn.nowrap
    def _block(self, name: str) -> Block | ResidualBlock:
        if self.backbone == "resnet":
            return ResidualBlock(self.dropout, name=name)
        return Block(self.heads, self.head_dim, self.mlp_dim, self.dropout, name=name)

    @nn.nowrap
    def _add_positions(self, tokens: Array, places: np.ndarray) -> Array:
        shape = (self.max_tokens, self.width)
        if self.positions == "sinusoidal":
            # A variable, not a constant: converted weights bring their own table, to the last bit.
            table = self.variable("constants", "positions", lambda: jnp.asarray(sinusoidal_positions(*shape))).value
        elif self.positions == "learned":
            table = self.param("positions", nn.initializers.normal(0.02), shape)
        else:
            return tokens
        return tokens + read_table(table, places)[None].astype(tokens.dtype)


def _seen(tokens: Float[Array, "batch tokens width"], hidden: Bool[Array, "batch windows"], count: int) -> Float[Array, "batch seen width"]:
    """The CLS token and those of windows that are not hidden, where `count` of each series are."""
    places = 1 + hidden_places(~hidden, hidden.shape[1] - count)
    return jnp.concatenate([tokens[:, :1], jnp.take_along_axis(tokens, places[..., None], axis=1)], axis=1)
