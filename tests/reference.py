"""The method in float64 NumPy, written for clarity alone: the source of truth of the tests."""

import math

import numpy as np
from scipy.special import erf


def windows(x, window, stride=None):
    """(…, time) -> shape, mean, std; plain formulas, exact enough in float64."""
    x = np.lib.stride_tricks.sliding_window_view(x, window, axis=-1)[..., :: stride or window, :]
    mean, std = x.mean(-1, keepdims=True), x.std(-1, ddof=1, keepdims=True)
    return (x - mean) / (std + 1e-8), mean[..., 0], std[..., 0]


def scale_weights(x, scales):
    weights = 1 / (np.abs(np.log(np.abs(x)[..., None] / scales + 1e-6)) + 1e-6)
    return weights / weights.sum(-1, keepdims=True)


def embed_scalar(x, weight, bias, scales, weighted=True):
    lines = layer_norm(x[..., None, None] * weight + bias * scales[:, None])
    return (lines * scale_weights(x, scales)[..., None]).sum(-2) if weighted else lines.sum(-2)


def resize(x, size):
    """Linear, half-pixel centres, edges clamped."""
    position = np.clip((np.arange(size) + 0.5) * (len(x) / size) - 0.5, 0, len(x) - 1)
    return np.interp(position, np.arange(len(x)), x)


def layer_norm(x, scale=1.0, bias=0.0):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


def linear(x, params):
    return x @ params["kernel"] + params.get("bias", 0)


def embed(x, e, *, window, scales, stride=None, name=""):
    """(batch, time) -> tokens (batch, windows, width) of the windows of one size."""
    shape, mean, std = windows(x, window, stride)
    tokens = layer_norm(linear(shape, e[f"shape{name}"]), **e[f"shape_norm{name}"])
    scalars = [embed_scalar(s, e["nme"]["weight"], e["nme"]["bias"], scales) for s in (mean, std)]
    return layer_norm(linear(np.concatenate([tokens, *scalars], -1), e["merge"]), **e["merge_norm"])


def encode(x, params, positions, *, window, heads, scales):
    """(batch, time) -> normalised tokens (batch, 1 + windows, width) of a univariate encoder without dropout."""
    return encode_tokens(embed(x, params["embedding"], window=window, scales=scales), params, positions, heads=heads)


def encode_tokens(tokens, params, positions, *, heads, turn=lambda x: x):
    """Tokens (batch, windows, width) -> normalised tokens; `turn` is what becomes of queries and keys."""
    cls = np.broadcast_to(params["cls"], (len(tokens), 1, tokens.shape[-1]))
    h = np.concatenate([cls, tokens], 1)
    h = h + positions[: h.shape[1]]
    for i in range(sum(name.startswith("block_") for name in params)):
        block = params[f"block_{i}"]
        h = h + attention(layer_norm(h, **block["attention_norm"]), block["attention"], heads, turn)
        hidden = linear(layer_norm(h, **block["mlp_norm"]), block["mlp"]["in"])
        h = h + linear(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, block["mlp"]["out"])
    return layer_norm(h, **params["norm"])


def attention(x, params, heads, turn=lambda x: x):
    batch, tokens, _ = x.shape
    q, k, v = np.split(linear(x, params["qkv"]), 3, -1)
    q, k, v = (a.reshape(batch, tokens, heads, -1).transpose(0, 2, 1, 3) for a in (q, k, v))
    q, k = turn(q), turn(k)
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1]))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    return linear(mixed.transpose(0, 2, 1, 3).reshape(batch, tokens, -1), params["out"])


def rotate(x, places):
    """(…, tokens, dim) -> numbers i and i + dim / 2 as one complex number, times e^(i place / 10000^(2 i / dim))."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.outer(places, 10000.0 ** (-np.arange(half) / half)))
    return np.concatenate([turned.real, turned.imag], -1)


def convolve(x, params, kernel):
    """(batch, tokens, in) -> (batch, tokens, out), tap by tap; zeros beyond the ends."""
    taps = params["kernel"].reshape(kernel, x.shape[-1], -1)
    y = np.zeros((*x.shape[:2], taps.shape[-1])) + params["bias"]
    for token in range(x.shape[1]):
        for tap in range(kernel):
            if 0 <= (at := token + tap - (kernel - 1) // 2) < x.shape[1]:
                y[:, token] += x[:, at] @ taps[tap]
    return y


def residual_block(x, params, kernels):
    """(batch, tokens, width) -> the same, of three convolutions."""
    y = x
    for place, kernel in enumerate(kernels):
        y = np.maximum(y, 0) if place else y
        y = layer_norm(convolve(y, params[f"convolution_{place}"], kernel), **params[f"norm_{place}"])
    return np.maximum(x + y, 0)


def head(x, params):
    """Projector or predictor in training mode, one view."""
    hidden = x @ params["in"]["kernel"]
    normalised = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
    return linear(np.maximum(normalised, 0), params["out"])


def byol_loss(predictions, targets):
    """Lists of the two views' predictions and targets, each (batch, dim)."""
    p, z = ([v / np.linalg.norm(v, axis=-1, keepdims=True) for v in views] for views in (predictions, targets))
    return ((p[0] - z[1]) ** 2).mean() + ((p[1] - z[0]) ** 2).mean()


def contrastive_loss(predictions, targets, *, temperature):
    """NT-Xent, anchor by anchor."""
    ours, theirs = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (predictions, targets))
    places, losses = list(np.ndindex(ours.shape[:2])), []
    for row, view in places:
        others = [np.exp(ours[row, view] @ theirs[place] / temperature) for place in places if place != (row, view)]
        losses.append(np.log(sum(others)) - ours[row, view] @ theirs[row, 1 - view] / temperature)
    return np.mean(losses)


def differences(f, x, step=1e-6):
    """The gradient of a function of an array, by central differences."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        there = np.zeros_like(x)
        there[place] = step
        gradient[place] = (f(x + there) - f(x - there)) / (2 * step)
    return gradient
