"""The NuTime encoder: windows, tokens of shape, mean and std, and a small Transformer over them."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from nutime_jax.errors import InputError
from nutime_jax.models.embedding import WindowEmbedding
from nutime_jax.models.layers import Block, LayerNorm
from nutime_jax.models.positions import sinusoidal_positions
from nutime_jax.token_masks import check_masking, count_hidden, draw_mask, hidden_places

READOUTS = ("cls", "mean", "cls+mean", "all")
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
        first token is CLS.
    normalised: the last of them after the final layer norm; its CLS token is the published feature.
    """

    layers: tuple[Float[Array, "batch tokens width"], ...]
    normalised: Float[Array, "batch tokens width"]


def read_out(encoding: Encoding, *, layer: int | None = None, readout: str = "cls+mean") -> Float[Array, "batch features"]:
    """Features of a series from its tokens.

    Args:
        layer: 0 (tokens before the first block) to depth (after the last block); None is the last after the final norm.
        readout: "cls" (the CLS token), "mean" (the mean of the window tokens), "cls+mean" (both, concatenated), or "all"
            ("cls+mean" of every layer, from before the first block on, concatenated).

    Raises:
        InputError: no such layer or readout.
    """
    check_readout(len(encoding.layers) - 1, layer=layer, readout=readout)
    if readout == "all":
        return jnp.concatenate([read_out(encoding, layer=number) for number in range(len(encoding.layers))], axis=-1)
    tokens = encoding.normalised if layer is None else encoding.layers[layer]
    parts = {"cls": [tokens[:, 0]], "mean": [tokens[:, 1:].mean(1)]}
    parts["cls+mean"] = parts["cls"] + parts["mean"]
    return jnp.concatenate(parts[readout], axis=-1)


def last_tokens(readout: str) -> int | None:
    """How many tokens of the last block a readout needs, CLS first (`last` of `NuTimeEncoder`); None is all."""
    return 1 if readout == "cls" else None


def check_readout(depth: int, *, layer: object, readout: object) -> None:
    """Raises InputError unless an encoder of so many blocks has such a layer, and there is such a readout."""
    if not isinstance(readout, str) or readout not in READOUTS:
        raise InputError(f"readout {readout!r} is unknown; choose one of {', '.join(READOUTS)}")
    whole = layer is None or (isinstance(layer, (int, np.integer)) and not isinstance(layer, bool))
    if not whole or (layer is not None and not 0 <= layer <= depth):
        raise InputError(f"layer {layer!r} does not exist; choose 0 to {depth}, or none for the normalised last layer")
    if readout == "all" and layer is not None:
        raise InputError(f"readout 'all' reads every layer, and layer is {layer}; leave one of them out")


def check_lengths(lengths: Sequence[int | str], network: "NuTimeEncoder") -> tuple[int, ...]:
    """Lengths that the network can read series at, numbers or their digits, as numbers.

    Raises:
        InputError: one is named twice, the windows do not divide it, or there are too few positions for it.
    """
    most = (network.max_tokens - 1) * network.window
    for one in lengths:
        if not str(one).isdecimal() or int(one) % network.window or not 0 < int(one) <= most:
            raise InputError(f"length {one} cannot be embedded; choose a multiple of the window, {network.window}, up to {most}")
    if len(set(lengths)) < len(lengths):
        raise InputError(f"lengths are {', '.join(map(str, lengths))}; name each once")
    return tuple(int(one) for one in lengths)


def check_shifts(shifts: object, network: "NuTimeEncoder") -> int:
    """Raises InputError unless a window can be laid so many times, a point or more apart."""
    if not isinstance(shifts, (int, np.integer)) or isinstance(shifts, bool) or not 1 <= shifts <= network.window:
        raise InputError(f"shifts is {shifts!r}; choose a whole number from 1 to the points of a window, {network.window}")
    return int(shifts)


def build_encoder(config: ConfigDict, *, remat: str = "none") -> "NuTimeEncoder":
    """The encoder that the `model` section of a configuration describes; what it leaves out has the released value.

    Args:
        remat: what its blocks compute again on the way back, see REMAT.

    Raises:
        InputError: a name that is no attribute of `NuTimeEncoder`, or none of REMAT, or a mask that cannot be.
    """
    known = {field.name for field in dataclasses.fields(NuTimeEncoder)} - {"parent", "name", "remat"}
    if unknown := sorted(set(config) - known):
        raise InputError(f"model.{unknown[0]} is unknown; an encoder has {', '.join(sorted(known))}")
    if remat not in REMAT:
        raise InputError(f"remat is {remat!r}; choose one of {', '.join(REMAT)}")
    fields = {name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in config.items()}
    check_masking(*(fields.get(name, getattr(NuTimeEncoder, name)) for name in ("mask", "mask_kind", "mask_fill")), names="model.mask")
    return NuTimeEncoder(**fields, remat=remat)


class NuTimeEncoder(nn.Module):
    """NuTime encoder. The defaults are the released model: 2,395,328 parameters.

    window: points a window (and a token).
    width, depth, heads, head_dim, mlp_dim: the Transformer; QKV has no bias, the output projection has.
    dropout: on attention weights, projections and MLP, in training only.
    max_tokens: length of the table of positions; the longest series has (max_tokens - 1) * window points.
    scales, scale_dim, weighted_scales: see `models.scalars.NME`.
    normalisation: "window", or "instance" (shape normalised over the whole series; the release's ablation).
    statistics: what is embedded beside the shape: those of the "window", of the "instance", or "none".
    fusion: how the channels of a series become one token: "linear" (published; never pretrained) or "sum".
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
    normalisation: Literal["window", "instance"] = "window"
    statistics: Literal["window", "instance", "none"] = "window"
    fusion: Literal["linear", "sum"] = "linear"
    mask: float = 0.0
    mask_kind: Literal["random", "block"] = "random"
    mask_fill: Literal["learned", "drop"] = "learned"
    remat: Literal["none", "products", "everything"] = "none"

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
            InputError: the length is not a multiple of the window, or has too many windows.
        """
        embedding = WindowEmbedding(
            width=self.width,
            window=self.window,
            scales=self.scales,
            scale_dim=self.scale_dim,
            weighted_scales=self.weighted_scales,
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
        # A variable, not a constant: converted weights bring their own table, to the last bit.
        positions = self.variable("constants", "positions", lambda: jnp.asarray(sinusoidal_positions(self.max_tokens, self.width)))
        cls = self.param("cls", nn.initializers.normal(1e-6), (1, 1, self.width))
        # After the CLS token: weights are drawn in turn, and it is to be drawn as it is without a mask.
        if self.mask and self.mask_fill == "learned":
            filling = self.param("mask_token", nn.initializers.normal(0.02), (self.width,))
        if self.mask and train:
            hidden = draw_mask(self.make_rng("dropout"), *tokens.shape[:2], share=self.mask, kind=self.mask_kind)
        if hidden is not None and filling is not None:
            tokens = jnp.where(hidden[..., None], filling[None, None], tokens)
        tokens = jnp.concatenate([jnp.broadcast_to(cls, (tokens.shape[0], 1, self.width)), tokens], axis=1)

        def run(block: Block, tokens: Array, count: int | None) -> Array:
            return block(tokens, train=train, count=count)

        run = run if self.remat == "none" else nn.remat(run, policy=REMAT[self.remat], static_argnums=2)
        layers = [tokens + positions.value[None, :count].astype(tokens.dtype)]
        if hidden is not None and filling is None:
            layers = [_seen(layers[0], hidden, count_hidden(count - 1, self.mask))]
        for i in range(self.depth):
            block = Block(self.heads, self.head_dim, self.mlp_dim, self.dropout, name=f"block_{i}")
            layers.append(run(block, layers[-1], last if i == self.depth - 1 else None))
        return Encoding(tuple(layers), LayerNorm(name="norm")(layers[-1]))


def _seen(tokens: Float[Array, "batch tokens width"], hidden: Bool[Array, "batch windows"], count: int) -> Float[Array, "batch seen width"]:
    """The CLS token and those of windows that are not hidden, where `count` of each series are."""
    places = 1 + hidden_places(~hidden, hidden.shape[1] - count)
    return jnp.concatenate([tokens[:, :1], jnp.take_along_axis(tokens, places[..., None], axis=1)], axis=1)
