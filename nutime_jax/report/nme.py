"""The numerically multi-scaled embedding of scalars, as an encoder has learnt it."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from nutime_jax.config import ModelConfig
from nutime_jax.core.scalars import location_weights, scale_weights
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS, rescaled_scales, scalar_encoder_scope
from nutime_jax.report.figures import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECADES = 6
"""Scalars are drawn from 10**-DECADES to 10**DECADES, on both sides of zero."""
PER_DECADE = 5


@styled
def draw_nme(encoder: Encoder) -> "Figure":
    """What the trained NME makes of scalars over twelve decades and both signs.

    Above left, how much each scale takes part, over all locations if there are any; below it, the embedding, a row a
    dimension; right, the cosine of the embeddings of any two scalars.

    Raises:
        InputError: the encoder embeds no scalars, or not by NME.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    model = encoder.config.model
    if model.window_stats == "none":
        raise InputError(f"{encoder!r} embeds no mean and no std; there is no NME to draw")
    if model.scalar_encoder != "nme":
        raise InputError(
            f"{encoder!r} embeds mean and std by {model.scalar_encoder!r}; `plot nme` draws encoders whose model.scalar_encoder is nme"
        )
    trained, scales = encoder.variables["params"]["embedding"][scalar_encoder_scope("nme")], jnp.asarray(model.scales, jnp.float32)
    if model.learnable_scales:
        scales = rescaled_scales(scales, jnp.asarray(trained["log_stretch"]))
    sizes = 10.0 ** np.linspace(-DECADES, DECADES, 2 * DECADES * PER_DECADE + 1)
    scalars = jnp.asarray(np.concatenate([-sizes[::-1], sizes]), jnp.float32)
    embedded = np.asarray(SCALAR_ENCODERS["nme"](model, None).apply({"params": jax.tree.map(jnp.asarray, trained)}, scalars))
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    weights = _weights(scalars, scales, model) if model.scale_weighting else np.ones((len(scalars), len(scales)))

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    boxes = figure.add_gridspec(2, 2, width_ratios=(1.15, 1), height_ratios=(1, 1.5))
    above, below, right = figure.add_subplot(boxes[0, 0]), figure.add_subplot(boxes[1, 0]), figure.add_subplot(boxes[:, 1])
    limit = np.abs(embedded).max()
    diverging = matplotlib.colormaps["RdBu_r"].resampled(24)  # steps make a file a third as large
    panels = {
        above: (weights, {"cmap": "cividis", "vmin": 0}),
        below: (embedded, {"cmap": diverging, "vmin": -limit, "vmax": limit}),
        right: (unit @ unit.T, {"cmap": diverging, "vmin": -1, "vmax": 1}),
    }
    for axes, (values, colours) in panels.items():
        image = axes.imshow(values.T, origin="lower", aspect="auto", interpolation="none", **colours)
        bar = figure.colorbar(image, ax=axes, pad=0.01, ticks=MaxNLocator(4))
        bar.outline.set_visible(False)
        bar.solids.set_rasterized(True)
        axes.spines[:].set_visible(False)
        _mark_decades(axes.xaxis)
    kept = np.arange(0, len(scales), -(-len(scales) // 5))
    above.set_yticks(kept, [_power(scales[place]) for place in kept])
    above.set_xticklabels([])
    _mark_decades(right.yaxis)
    above.set(title="weight of each scale", ylabel="scale")
    below.set(title="embedding", xlabel="scalar", ylabel="dimension")
    right.set(title="cosine of the embeddings of two scalars", xlabel="scalar", ylabel="scalar")
    return figure


def _weights(scalars: Any, scales: Any, model: ModelConfig) -> np.ndarray:
    """How much each scale takes part in the embedding of each scalar, (scalars, scales)."""
    locations = jnp.asarray(model.locations or (0.0,), jnp.float32)
    each = scale_weights(scalars[:, None] - locations[None], scales)
    return np.asarray(jnp.einsum("xl,xlk->xk", location_weights(scalars, locations), each))


def _mark_decades(axis: Any) -> None:
    """Ticks of an axis whose places are negative scalars, the largest first, and then positive ones."""
    each = 2 * DECADES * PER_DECADE + 1
    wanted = [k for k in range(-DECADES + 1, DECADES + 1) if (DECADES - k) % 4 == 0]
    steps = [(k + DECADES) * PER_DECADE for k in wanted]
    places = [each - 1 - step for step in reversed(steps)] + [each - 0.5] + [each + step for step in steps]
    signs = [f"−{_power(10.0**k)}" for k in reversed(wanted)] + ["0"] + [_power(10.0**k) for k in wanted]
    axis.set_ticks(places, signs, fontsize=8)


def _power(value: float) -> str:
    exponent = np.log10(value)
    if abs(exponent - round(exponent)) > 1e-6:
        return f"{value:.2g}"
    return "10" + f"{exponent:.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
