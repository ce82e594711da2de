"""The method in float64 NumPy, written for clarity alone: the source of truth of the tests."""

import math

import numpy as np
from scipy.special import erf


def windows(x, window):
    """(…, time) -> shape, mean, std; plain formulas, exact enough in float64."""
    x = x.reshape(*x.shape[:-1], -1, window)
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


def encode(x, params, positions, *, window, heads, scales):
    """(batch, time) -> normalised tokens (batch, 1 + windows, width) of a univariate encoder without dropout."""
    shape, mean, std = windows(x, window)
    e = params["embedding"]
    tokens = layer_norm(linear(shape, e["shape"]), **e["shape_norm"])
    scalars = [embed_scalar(s, e["nme"]["weight"], e["nme"]["bias"], scales) for s in (mean, std)]
    tokens = layer_norm(linear(np.concatenate([tokens, *scalars], -1), e["merge"]), **e["merge_norm"])
    cls = np.broadcast_to(params["cls"], (len(x), 1, tokens.shape[-1]))
    h = np.concatenate([cls, tokens], 1)
    h = h + positions[: h.shape[1]]
    for i in range(sum(name.startswith("block_") for name in params)):
        block = params[f"block_{i}"]
        h = h + attention(layer_norm(h, **block["attention_norm"]), block["attention"], heads)
        hidden = linear(layer_norm(h, **block["mlp_norm"]), block["mlp"]["in"])
        h = h + linear(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, block["mlp"]["out"])
    return layer_norm(h, **params["norm"])


def attention(x, params, heads):
    batch, tokens, _ = x.shape
    q, k, v = np.split(linear(x, params["qkv"]), 3, -1)
    q, k, v = (a.reshape(batch, tokens, heads, -1).transpose(0, 2, 1, 3) for a in (q, k, v))
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1]))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    return linear(mixed.transpose(0, 2, 1, 3).reshape(batch, tokens, -1), params["out"])


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
