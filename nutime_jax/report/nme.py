"""Figure of the trained numerically multi-scaled embedding (NME) of scalars."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from nutime_jax.config import ModelConfig
from nutime_jax.core.scalars import location_weights, scale_weights
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS, rescaled_scales, scalar_encoder_scope
from nutime_jax.report.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_EXPONENT = 6
"""Magnitudes of the plotted scalars, of both signs: 10**-MAX_EXPONENT to 10**MAX_EXPONENT."""
STEPS_PER_EXPONENT = 5


@styled
def plot_nme(encoder: Encoder) -> "Figure":
    """Plot the NME over twelve orders of magnitude and both signs.

    Top left: the weight of each scale, summed over locations. Bottom left: the embedding, one row per dimension. Right: the
    cosine similarity of the embeddings of every two scalars.

    Raises:
        InputError: the encoder does not embed mean and std, or not by NME.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    model = encoder.config.model
    if model.window_stats == "none":
        raise InputError(f"{encoder!r} does not embed mean and std: it has no NME to plot.")
    if model.scalar_encoder != "nme":
        raise InputError(
            f"{encoder!r} embeds mean and std by {model.scalar_encoder!r}. `plot nme` needs an encoder with model.scalar_encoder=nme."
        )
    trained, scales = encoder.variables["params"]["embedding"][scalar_encoder_scope("nme")], jnp.asarray(model.scales, jnp.float32)
    if model.learnable_scales:
        scales = rescaled_scales(scales, jnp.asarray(trained["log_stretch"]))
    sizes = 10.0 ** np.linspace(-MAX_EXPONENT, MAX_EXPONENT, 2 * MAX_EXPONENT * STEPS_PER_EXPONENT + 1)
    scalars = jnp.asarray(np.concatenate([-sizes[::-1], sizes]), jnp.float32)
    embedded = np.asarray(SCALAR_ENCODERS["nme"](model, None).apply({"params": jax.tree.map(jnp.asarray, trained)}, scalars))
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    weights = _weights(scalars, scales, model) if model.scale_weighting else np.ones((len(scalars), len(scales)))

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1), height_ratios=(1, 1.5))
    top, bottom, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[:, 1])
    limit = np.abs(embedded).max()
    diverging = matplotlib.colormaps["RdBu_r"].resampled(24)  # steps make a file a third as large
    panels = {
        top: (weights, {"cmap": "cividis", "vmin": 0}),
        bottom: (embedded, {"cmap": diverging, "vmin": -limit, "vmax": limit}),
        right: (unit @ unit.T, {"cmap": diverging, "vmin": -1, "vmax": 1}),
    }
    for axes, (values, colours) in panels.items():
        image = axes.imshow(values.T, origin="lower", aspect="auto", interpolation="none", **colours)
        bar = figure.colorbar(image, ax=axes, pad=0.01, ticks=MaxNLocator(4))
        bar.outline.set_visible(False)
        bar.solids.set_rasterized(True)
        axes.spines[:].set_visible(False)
        _label_exponents(axes.xaxis)
    labelled = np.arange(0, len(scales), -(-len(scales) // 5))
    top.set_yticks(labelled, [_power(scales[index]) for index in labelled])
    top.set_xticklabels([])
    _label_exponents(right.yaxis)
    top.set(title="weight of each scale", ylabel="scale")
    bottom.set(title="embedding", xlabel="scalar", ylabel="dimension")
    right.set(title="cosine similarity of embeddings", xlabel="scalar", ylabel="scalar")
    return figure


def _weights(scalars: Any, scales: Any, model: ModelConfig) -> np.ndarray:
    """Return the weight of each scale in the embedding of each scalar, shape (scalars, scales)."""
    locations = jnp.asarray(model.locations or (0.0,), jnp.float32)
    weights = scale_weights(scalars[:, None] - locations[None], scales)
    return np.asarray(jnp.einsum("xl,xlk->xk", location_weights(scalars, locations), weights))


def _label_exponents(axis: Any) -> None:
    """Set ticks of an axis with negative scalars first, from the largest magnitude, and then positive ones."""
    per_sign = 2 * MAX_EXPONENT * STEPS_PER_EXPONENT + 1
    exponents = [k for k in range(-MAX_EXPONENT + 1, MAX_EXPONENT + 1) if (MAX_EXPONENT - k) % 4 == 0]
    steps = [(k + MAX_EXPONENT) * STEPS_PER_EXPONENT for k in exponents]
    positions = [per_sign - 1 - step for step in reversed(steps)] + [per_sign - 0.5] + [per_sign + step for step in steps]
    labels = [f"−{_power(10.0**k)}" for k in reversed(exponents)] + ["0"] + [_power(10.0**k) for k in exponents]
    axis.set_ticks(positions, labels, fontsize=8)


def _power(value: float) -> str:
    exponent = np.log10(value)
    if abs(exponent - round(exponent)) > 1e-6:
        return f"{value:.2g}"
    return "10" + f"{exponent:.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
