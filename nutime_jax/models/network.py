"""NuTime encoder: window tokens (shape, mean, std) and a small Transformer over them; checks of its input options."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from nutime_jax.config import ModelConfig
from nutime_jax.core.masking import count_masked, masked_indices, sample_mask
from nutime_jax.core.windows import count_windows
from nutime_jax.errors import InputError
from nutime_jax.models.layers import Block, LayerNorm, ResidualBlock, with_mean
from nutime_jax.models.positions import (
    interpolate_pos_embedding,
    rotary_angles,
    sinusoidal_positions,
    token_positions,
)
from nutime_jax.models.scalar_encoders import check_scalar_encoder
from nutime_jax.models.stem import pooled_stem_features
from nutime_jax.models.tokens import WindowEmbedding

REMAT = {
    "none": None,
    # Saves outputs of weight matmuls; attention, dropout, norms and activations are recomputed.
    "save_dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Saves block inputs only.
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""Rematerialisation policies of the blocks, by name. Results are equal up to rounding."""


class Encoding(NamedTuple):
    """Outputs of the encoder. Under jit, unused outputs are not computed.

    layers: residual stream before the first block and after each, depth + 1 arrays (batch, 1 + windows, width). The first
        token is CLS; for a backbone without CLS, it is the mean of the window tokens.
    normalised: the last of them after the final layer norm; its CLS token is the feature of the paper.
    stem: pooled stem features, averaged over channels; see `stem.pooled_stem_features`.
    """

    layers: tuple[Float[Array, "batch tokens width"], ...]
    normalised: Float[Array, "batch tokens width"]
    stem: Float[Array, "batch features"]


class NuTimeEncoder(nn.Module):
    """NuTime encoder (paper section 3). The defaults are the model of the paper.

    config: options of the network; see docs/configuration.md.
    remat: rematerialisation of the blocks, a key of REMAT.
    platform: platform that the blocks are computed on, see `layers.attention_for`; None is JAX's default.
    dtype: dtype of residual stream and matmuls of the blocks; None is that of the parameters. Windows, scalar encoders,
        statistics of norms, the softmax, and outputs of the encoder do not depend on it.
    kernel_mesh: mesh of the batch for the kernel of `models.fused_attention`; None computes attention by matmuls.
    """

    config: ModelConfig = ModelConfig()
    remat: str = "none"
    platform: str | None = None
    dtype: Any = None
    kernel_mesh: Mesh | None = None

    @nn.nowrap
    def count_tokens(self, length: int) -> int:
        """Return the number of tokens, CLS included, of a series of this length in time points.

        Raises:
            InputError: windows do not tile the length exactly.
        """
        return 1 + sum(self._count_windows(length).values())

    @nn.nowrap
    def _count_windows(self, length: int) -> dict[int, int]:
        return {size: count_windows(length, window=size, stride=stride) for size, stride in self.config.window_specs}

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch channels time"],
        offset: Float[Array, "batch channels"] | None = None,
        *,
        train: bool = False,
        num_output_tokens: int | None = None,
        masked: Bool[Array, "batch windows"] | None = None,
        mask_embedding: Float[Array, " width"] | None = None,
    ) -> Encoding:
        """Encode series of any finite scale.

        Args:
            x: series, (batch, channels, time).
            offset: constant to add to each channel, see `data.series.centre_to_float32`; None is 0.
            train: whether dropout and `mask_ratio` are active.
            num_output_tokens: number of tokens that the last block returns, CLS first; None is all. With CLS alone, two
                thirds of that block are not computed.
            masked, mask_embedding: windows to mask (True) regardless of `mask_ratio`, and their replacement; pass both.

        Raises:
            InputError: windows do not tile the length exactly, or need more than `max_tokens` tokens.
        """
        config = self.config
        embedding = WindowEmbedding(config, self.platform or jax.default_backend(), name="embedding")
        tokens = embedding(x, offset)
        stem = pooled_stem_features(x, embedding.shape_kernels(), dilations=config.stem_dilations).mean(1)
        num_tokens = tokens.shape[1] + 1
        if num_tokens > config.max_tokens:
            raise InputError(
                f"length {x.shape[-1]} needs {num_tokens} tokens, more than max_tokens {config.max_tokens}; "
                "shorten the series or raise model.max_tokens"
            )
        positions = token_positions(self._count_windows(x.shape[-1]), config.window_size)
        transformer = config.backbone == "transformer"
        if transformer:
            cls = self.param("cls", nn.initializers.normal(1e-6), (1, 1, config.width))
        # After the CLS token: initialisers share a key stream, and masking must not change the CLS token.
        masked, mask_embedding = self._mask(tokens, masked, mask_embedding, train=train)
        if masked is not None and mask_embedding is not None:
            tokens = jnp.where(masked[..., None], mask_embedding[None, None], tokens)
        if transformer:
            tokens = jnp.concatenate([jnp.broadcast_to(cls, (tokens.shape[0], 1, config.width)), tokens], axis=1)
            tokens = self._add_positions(tokens, positions)
        else:
            tokens = with_mean(self._add_positions(tokens, positions[1:]))
        if masked is not None and mask_embedding is None:
            tokens = _drop_masked(tokens, masked, count_masked(num_tokens - 1, config.mask_ratio))
        return Encoding(*self._run_blocks(tokens, positions, num_output_tokens, train=train), stem)

    @nn.nowrap
    def _mask(self, tokens: Array, masked: Array | None, mask_embedding: Array | None, *, train: bool) -> tuple[Array | None, Array | None]:
        """Return masked windows and their replacement, by `mask_ratio` where it applies."""
        config = self.config
        if config.mask_ratio and config.mask_strategy == "learned":
            mask_embedding = self.param("mask_token", nn.initializers.normal(0.02), (config.width,))
        if config.mask_ratio and train:
            key = self.make_rng("dropout")
            masked = sample_mask(key, *tokens.shape[:2], ratio=config.mask_ratio, mask_type=config.mask_type)
        return masked, mask_embedding

    @nn.nowrap
    def _run_blocks(
        self, tokens: Array, positions: np.ndarray, num_output_tokens: int | None, *, train: bool
    ) -> tuple[tuple[Array, ...], Array]:
        """Return the tokens of all layers, and those of the last after the final norm."""
        config = self.config
        rotary = {"angles": rotary_angles(positions, config.head_dim)} if config.pos_embedding == "rotary" else {}

        def run(block: Block | ResidualBlock, tokens: Array, num_output_tokens: int | None) -> Array:
            return block(tokens, train=train, num_output_tokens=num_output_tokens, **rotary)

        if self.remat != "none":
            run = nn.remat(run, policy=REMAT[self.remat], static_argnums=2)
        layers = [tokens if self.dtype is None else tokens.astype(self.dtype)]
        for i in range(config.depth):
            last = i == config.depth - 1
            layers.append(run(self._block(i), layers[-1], num_output_tokens if last else None))
        outputs = tuple(layer.astype(tokens.dtype) for layer in layers)
        return outputs, LayerNorm(name="norm")(outputs[-1])

    @nn.nowrap
    def _block(self, index: int) -> Block | ResidualBlock:
        block = ResidualBlock if self.config.backbone == "resnet" else Block
        options = {"platform": self.platform or jax.default_backend(), "dtype": self.dtype, "kernel_mesh": self.kernel_mesh}
        rate = self.config.stochastic_depth * (index + 1) / self.config.depth
        return block(self.config, skip_rate=rate, name=f"block_{index}", **options)

    @nn.nowrap
    def _add_positions(self, tokens: Array, positions: np.ndarray) -> Array:
        config = self.config
        shape = (config.max_tokens, config.width)
        if config.pos_embedding == "sinusoidal":
            # A variable, so that converted weights keep their own table, bit for bit.
            table = self.variable("constants", "positions", lambda: jnp.asarray(sinusoidal_positions(*shape))).value
        elif config.pos_embedding == "learned":
            table = self.param("positions", nn.initializers.normal(0.02), shape)
        else:
            return tokens
        return tokens + interpolate_pos_embedding(table, positions)[None].astype(tokens.dtype)


def _drop_masked(
    tokens: Float[Array, "batch tokens width"], masked: Bool[Array, "batch windows"], count: int
) -> Float[Array, "batch visible width"]:
    """Return the CLS token and the tokens of visible windows; `count` windows of each series are masked."""
    indices = 1 + masked_indices(~masked, masked.shape[1] - count)
    return jnp.concatenate([tokens[:, :1], jnp.take_along_axis(tokens, indices[..., None], axis=1)], axis=1)


def build_encoder(
    model: ModelConfig, *, remat: str = "none", platform: str | None = None, dtype: str = "float32", kernel_mesh: Mesh | None = None
) -> NuTimeEncoder:
    """Return the encoder network of a configuration.

    Args:
        model: options of the network.
        remat: rematerialisation of the blocks, a key of REMAT.
        platform: platform that it will run on; None is JAX's default.
        dtype: "float32" or "bfloat16", see `NuTimeEncoder`. Training passes `model.dtype`.
        kernel_mesh: see `NuTimeEncoder`.

    Raises:
        InputError: the scalar encoder is not registered, or an option does not fit it.
    """
    check_scalar_encoder(model)
    dtype = None if dtype == "float32" else dtype
    return NuTimeEncoder(model, remat=remat, platform=platform, dtype=dtype, kernel_mesh=kernel_mesh)


def check_input_lengths(input_lengths: Sequence[int | str], network: NuTimeEncoder) -> tuple[int, ...]:
    """Return input lengths as integers.

    Args:
        input_lengths: lengths in time points, integers or their digits; 0 is the bucket of a series.
        network: encoder network.

    Raises:
        InputError: a length occurs twice, is not tiled by windows exactly, or needs more than `max_tokens` tokens.
    """
    for length in input_lengths:
        if not str(length).isdecimal() or not (int(length) == 0 or _fits(int(length), network)):
            raise InputError(f"length {length} cannot be embedded; choose {_accepted_lengths(network.config)}")
    if len(set(input_lengths)) < len(input_lengths):
        raise InputError(f"input_lengths are {', '.join(map(str, input_lengths))}; name each once")
    return tuple(int(length) for length in input_lengths)


def _fits(length: int, network: NuTimeEncoder) -> bool:
    try:
        return length > 0 and network.count_tokens(length) <= network.config.max_tokens
    except InputError:
        return False


def _accepted_lengths(model: ModelConfig) -> str:
    if model.window_stride == model.window_size and not model.extra_window_sizes:
        longest = (model.max_tokens - 1) * model.window_size
        return f"a multiple of window_size {model.window_size}, up to {longest}"
    windows = " and ".join(f"of {size} time points every {stride}" for size, stride in model.window_specs)
    return f"a length that windows {windows} tile exactly, at most {model.max_tokens - 1} windows"


def check_num_window_offsets(num_window_offsets: object, network: NuTimeEncoder) -> int:
    """Return the number of window offsets as an integer.

    Raises:
        InputError: it is not an integer from 1 to the window stride.
    """
    stride = network.config.window_stride
    integer = isinstance(num_window_offsets, (int, np.integer)) and not isinstance(num_window_offsets, bool)
    if not integer or not 1 <= num_window_offsets <= stride:
        raise InputError(f"num_window_offsets is {num_window_offsets!r}; choose an integer from 1 to the window stride, {stride}")
    return int(num_window_offsets)


def check_diff_orders(diff_orders: Sequence[int | str]) -> tuple[int, ...]:
    """Return difference orders as integers.

    Args:
        diff_orders: 0 (the series) and 1 (its first difference), integers or their digits.

    Raises:
        InputError: an order occurs twice, or is neither 0 nor 1.
    """
    for order in diff_orders:
        if isinstance(order, bool) or str(order) not in ("0", "1"):
            raise InputError(f"diff_orders has {order}; choose 0 (the series), 1 (its first difference), or both")
    if len(set(diff_orders)) < len(diff_orders):
        raise InputError(f"diff_orders are {', '.join(map(str, diff_orders))}; name each once")
    return tuple(int(order) for order in diff_orders)
