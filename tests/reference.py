"""The method in float64 NumPy, written for clarity alone: the source of truth of the tests."""

import math

import numpy as np
from scipy.special import erf


def windows(x, window, stride=None):
    """(…, time) -> shape, mean, std; plain formulas, exact enough in float64."""
    x = np.lib.stride_tricks.sliding_window_view(x, window, axis=-1)[..., :: stride or window, :]
    mean, std = x.mean(-1, keepdims=True), x.std(-1, ddof=1, keepdims=True)
    return (x - mean) / (std + 1e-8), mean[..., 0], std[..., 0]


def first_difference(x):
    """(…, time) -> the same shape; the first difference stands twice."""
    steps = np.diff(x, axis=-1)
    return np.concatenate([steps[..., :1], steps], -1)


def dense_shape(x, params, window, dense_stride):
    """(…, time) -> (…, tokens, width): embeddings of all windows that begin within a token, averaged."""
    ends, tokens = x.shape[-1] - window, []
    for first in range(0, ends + 1, window):
        starts = range(first, min(first + window - 1, ends) + 1, dense_stride)
        shapes = [windows(x[..., start : start + window], window)[0][..., 0, :] for start in starts]
        embedded = [layer_norm(linear(shape, params["kernels"]), **params["norm"]) for shape in shapes]
        tokens.append(np.mean([x * (1 + erf(x / math.sqrt(2))) / 2 for x in embedded], axis=0))
    return np.stack(tokens, -2)


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


def encode(x, params, positions, *, window, heads, scales, hidden=None, filling=None):
    """(batch, time) -> normalised tokens (batch, 1 + windows, width) of a univariate encoder without dropout.

    hidden (batch, windows): `filling` stands in the place of these; without one, as many of every series are left out.
    """
    tokens = embed(x, params["embedding"], window=window, scales=scales)
    if hidden is not None and filling is not None:
        tokens[hidden] = filling
    gone = hidden if filling is None else None
    return encode_tokens(tokens, params, positions, heads=heads, gone=gone)


def encode_tokens(tokens, params, positions, *, heads, turn=lambda x: x, gone=None):
    """Tokens (batch, windows, width) -> normalised tokens; `turn` is what becomes of queries and keys.

    gone (batch, windows): these are left out, as many of every series.
    """
    cls = np.broadcast_to(params["cls"], (len(tokens), 1, tokens.shape[-1]))
    h = np.concatenate([cls, tokens], 1)
    h = h + positions[: h.shape[1]]
    if gone is not None:
        h = np.stack([row[[True, *~those]] for row, those in zip(h, gone, strict=True)])
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


def info_nce_loss(predictions, targets, *, temperature):
    """NT-Xent, anchor by anchor."""
    ours, theirs = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (predictions, targets))
    places, losses = list(np.ndindex(ours.shape[:2])), []
    for row, view in places:
        others = [np.exp(ours[row, view] @ theirs[place] / temperature) for place in places if place != (row, view)]
        losses.append(np.log(sum(others)) - ours[row, view] @ theirs[row, 1 - view] / temperature)
    return np.mean(losses)


def simsiam_loss(predictions, targets):
    """Half the negative cosine of either direction, series by series."""
    losses = [cosine(p[0], z[1]) / 2 + cosine(p[1], z[0]) / 2 for p, z in zip(predictions, targets, strict=True)]
    return -np.mean(losses)


def moco_loss(predictions, targets, *, temperature):
    """2 * temperature * cross entropy of each prediction among the targets of the other view, both directions."""
    total = 0
    for view in (0, 1):
        for row, prediction in enumerate(predictions[:, view]):
            chances = np.exp([cosine(prediction, target) / temperature for target in targets[:, 1 - view]])
            total -= 2 * temperature * np.log(chances[row] / chances.sum()) / len(predictions)
    return total


def cosine(a, b):
    return a @ b / math.sqrt((a @ a) * (b @ b))


def window_targets(x, window):
    """(…, time) -> shape of each window, and mean and std on a scale that is logarithmic from 1e-4 on."""
    shape, *statistics = windows(x, window)
    scaled = np.stack(statistics, -1) / 1e-4
    return np.concatenate([shape, np.sign(scaled) * np.log(np.abs(scaled) + np.sqrt(scaled**2 + 1))], -1)


def masked_loss(predictions, targets):
    """Of hidden windows (…, window + 2), one at a time."""
    shapes, statistics = [], []
    for place in np.ndindex(targets.shape[:-1]):
        error = np.abs(predictions[place] - targets[place])
        shapes += [one**2 for one in error[:-2]]
        statistics += [one**2 if one < 1 else 2 * one - 1 for one in error[-2:]]
    return np.mean(shapes) + np.mean(statistics)


def learning_rate(step, config, *, steps):
    """Of the update after `step` others."""
    if step < config.warmup_steps:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps
    share = (step - config.warmup_steps) / (steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * share)) / 2


def adamw(param, gradient, first, second, *, step, rate, config):
    """-> param and both moments after the update that follows `step` others."""
    first = config.beta1 * first + (1 - config.beta1) * gradient
    second = config.beta2 * second + (1 - config.beta2) * gradient**2
    unbiased = first / (1 - config.beta1 ** (step + 1)), second / (1 - config.beta2 ** (step + 1))
    return param - rate * (unbiased[0] / (np.sqrt(unbiased[1]) + config.epsilon) + config.weight_decay * param), first, second


def differences(f, x, step=1e-6):
    """The gradient of a function of an array, by central differences."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        there = np.zeros_like(x)
        there[place] = step
        gradient[place] = (f(x + there) - f(x - there)) / (2 * step)
    return gradient


def stem_features(x, kernels, dilations):
    """(time,) -> proportions above -0.5, 0 and 0.5 standard deviations, maximum and std of the responses to each kernel."""
    window, stride = len(kernels), max(len(x) // 128, 1)
    x = (x - x.mean()) / x.std(ddof=1)
    kernels = (kernels - kernels.mean(0)) / np.linalg.norm(kernels - kernels.mean(0), axis=0)
    found = []
    for dilation in dilations:
        span = dilation * (window - 1)
        value = lambda point: x[min(max(point, 0), len(x) - 1)]  # noqa: E731
        starts = range(-(span // 2), len(x) - span // 2, stride)
        windows = np.array([[value(start + dilation * tap) for tap in range(window)] for start in starts])
        responses = windows @ kernels
        std = responses.std(0)
        scaled = responses / np.maximum(std, 1e-2)
        found += [np.clip((scaled - threshold) / 0.2 + 0.5, 0, 1).mean(0) for threshold in (-0.5, 0, 0.5)]
        found += [responses.max(0), std]
    return np.concatenate(found)
