"""Few-shot classification on frozen features: heads fitted on a few cases per class, all tasks in one compiled function."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from nutime_jax.distributed.backend import use_backend
from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import FeatureSet
from nutime_jax.finetuning.probe import CLIP

TASKS = 100
PENALTY = 0.1
"""Penalty of the ridge head, relative to a mean squared norm of 1 of the scaled cases; selected within the train splits of 32 UCR
datasets (of 0.01, 0.1 and 1), since a task has too few cases to select it."""
KERNEL_PENALTY = 0.01
"""Penalty of the kernel head, relative to a mean of 1 of the diagonal of the centred kernel; selected within the train splits of 55 UCR
datasets, whose accuracies with 0.003 to 0.1 differ by less than 0.2 pp."""
BLOCK = 1024
"""Number of test cases that are scored at a time."""
BLOCK_TASKS = 8
"""Number of tasks that are scored at a time."""


def fewshot_metrics(
    train: FeatureSet, test: FeatureSet, *, shots: int = 5, tasks: int = TASKS, head: str = "kernel", seed: int = 0
) -> dict[str, float]:
    """Return the test accuracy of a head fitted on `shots` training cases per class, over many sampled tasks.

    Features are standardised with the statistics of the sampled cases. The official implementation also samples as many
    test cases as it trains on, which adds noise, and accepts classes with fewer cases than shots.

    Args:
        shots: sampled cases per class.
        tasks: number of tasks; the sample of a task depends only on the seed and its index.
        head: "kernel" (least squares with a Gaussian kernel, see `finetuning.probe.GaussianKernel`), "ridge" (linear least squares),
            both with a fixed penalty, or "centroid" (nearest class mean).
        seed: of the draws.

    Returns:
        "accuracy": mean over tasks; "std": standard deviation (ddof 1, 0 for one task); "stderr": standard error of the mean
        over samples of *this* train split, since samples overlap.

    Raises:
        InputError: a class has fewer training cases than shots, or an option is out of range.
    """
    accuracies = task_accuracies(train, test, shots=shots, tasks=tasks, head=head, seed=seed)
    std = float(accuracies.std(ddof=1)) if tasks > 1 else 0.0
    return {"accuracy": float(accuracies.mean()), "std": std, "stderr": std / tasks**0.5}


@use_backend()
def task_accuracies(
    train: FeatureSet, test: FeatureSet, *, shots: int = 5, tasks: int = TASKS, head: str = "kernel", seed: int = 0
) -> Float[np.ndarray, " {tasks}"]:
    """Return the accuracy of every task; see `fewshot_metrics`.

    Compiled functions depend on shots, tasks, width of the features and number of classes (rounded up to a power of two), not
    on the numbers of cases.
    """
    if head not in HEADS:
        raise InputError(f"head {head!r} is unknown; choose one of {', '.join(HEADS)}")
    if shots < 1 or tasks < 1:
        raise InputError(f"{tasks} tasks of {shots} shots cannot be drawn; both are 1 or more")
    places = draw_tasks(train.labels, shots=shots, tasks=tasks, seed=seed)
    classes = np.unique(train.labels)
    padded = 1 << (len(classes) - 1).bit_length()
    places = np.pad(places, ((0, 0), (0, padded - len(classes)), (0, 0)))
    known = np.arange(padded) < len(classes)
    features = np.asarray(train.features, np.float32)
    fitted = _fit_tasks(features[places], known, head=head)
    wanted = np.searchsorted(classes, test.labels)
    wanted[classes[np.minimum(wanted, len(classes) - 1)] != test.labels] = -1  # a class without training cases
    right = 0
    for begin in range(0, len(wanted), BLOCK):
        block = np.asarray(test.features[begin : begin + BLOCK], np.float32)
        blank = min(BLOCK, 1 << max(len(wanted) - 1, 63).bit_length()) - len(block)
        block, codes = np.pad(block, ((0, blank), (0, 0))), np.pad(wanted[begin : begin + BLOCK], (0, blank), constant_values=-1)
        right = right + np.asarray(_count_right(fitted, block, codes))
    return right / len(wanted)


def draw_tasks(labels: np.ndarray, *, shots: int, tasks: int, seed: int = 0) -> Int[np.ndarray, "{tasks} classes {shots}"]:
    """Return indices of the cases of every task, without repetition, classes in sorted order.

    A task shuffles all cases and takes the first of every class: its sample for one shot is part of that for five.

    Raises:
        InputError: a class has fewer cases than shots.
    """
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < shots:
        scarce = counts.argmin()
        raise InputError(
            f"class {str(classes[scarce])!r} has {counts[scarce]} training cases, too few for {shots} shots; "
            f"ask for {counts[scarce]} or fewer"
        )
    order = np.random.default_rng(seed).random((tasks, len(labels)))  # row by row: more tasks change none
    ranks = np.argsort(codes + order, axis=1)  # by class, at random within it
    starts = np.cumsum(counts) - counts
    return ranks[:, starts[:, None] + np.arange(shots)]


class LinearHead(NamedTuple):
    """Linear scores of features. weights: (features, classes). bias: (classes,)."""

    weights: Float[Array, "features classes"]
    bias: Float[Array, " classes"]

    def scores(self, features: Float[Array, "cases features"]) -> Float[Array, "classes cases"]:
        """Return the score of each class; that of a padded class is -inf."""
        return self.weights.T @ features.T + self.bias[:, None]


class KernelHead(NamedTuple):
    """Linear scores of the Gaussian kernel of features and centres.

    mean, scale: (features,), of the features. centres: (centres, features), standardised and clipped.
    squared_width: of the kernel. weights: (centres, classes). bias: (classes,).
    """

    mean: Float[Array, " features"]
    scale: Float[Array, " features"]
    centres: Float[Array, "centres features"]
    squared_width: Float[Array, ""]
    weights: Float[Array, "centres classes"]
    bias: Float[Array, " classes"]

    def scores(self, features: Float[Array, "cases features"]) -> Float[Array, "classes cases"]:
        """Return the score of each class; that of a padded class is -inf."""
        clipped = jnp.clip((features - self.mean[None]) * self.scale[None], -CLIP, CLIP)
        kernel = jnp.exp(_squared_distances(self.centres, clipped) / (-2 * self.squared_width))
        return self.weights.T @ kernel + self.bias[:, None]


Head = LinearHead | KernelHead


@partial(jax.jit, static_argnames="head")
def _fit_tasks(support: Float[Array, "tasks classes shots features"], known: Bool[Array, " classes"], *, head: str) -> Head:
    """Return the heads of all tasks: leaves have a leading axis (tasks,)."""
    with jax.default_matmul_precision("highest"):
        return jax.vmap(partial(HEADS[head], known=known))(support)


@jax.jit
def _count_right(heads: Head, features: Float[Array, "cases features"], codes: Int[Array, " cases"]) -> Int[Array, " tasks"]:
    place = jnp.arange(heads.bias.shape[1])[:, None]

    def count(head):
        scores = head.scores(features)
        own = jnp.take_along_axis(scores, jnp.maximum(codes, 0)[None], axis=0)
        # The first of equal scores counts, as in an argmax, which is slow over short axes.
        return ((codes >= 0) & ((scores < own) | ((scores == own) & (place >= codes[None]))).all(0)).sum()

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(count, heads, batch_size=BLOCK_TASKS)


def _standardise(
    support: Float[Array, "classes shots features"], known: Bool[Array, " classes"]
) -> tuple[Float[Array, "classes shots features"], Float[Array, " features"], Float[Array, " features"]]:
    """Return standardised cases, with zeros for padded classes, the mean and the inverse scale."""
    share = (known / (known.sum() * support.shape[1]))[:, None, None]
    mean = (share * support).sum((0, 1))
    centred = (support - mean[None, None]) * known[:, None, None]
    std = jnp.sqrt((share * centred**2).sum((0, 1)))
    # A constant feature is not scaled: its deviation is rounding error.
    scale = jnp.where(std > 1e-6 * jnp.abs(mean), 1 / jnp.where(std > 0, std, 1), 1)
    return centred * scale[None, None], mean, scale


def _fit_centroid(support: Float[Array, "classes shots features"], known: Bool[Array, " classes"]) -> LinearHead:
    """Return the nearest centroid as a linear score, without the squared norm of the case, which all classes share."""
    scaled, mean, scale = _standardise(support, known)
    centroids = scaled.mean(1)
    weights = centroids * scale[None]
    bias = -weights @ mean - (centroids**2).sum(1) / 2
    return LinearHead(weights.T, jnp.where(known, bias, -jnp.inf))


def _fit_ridge(support: Float[Array, "classes shots features"], known: Bool[Array, " classes"]) -> LinearHead:
    """Solve ridge regression by the smaller Gram matrix; zeros of padded classes do not contribute."""
    classes, shots, features = support.shape
    scaled, mean, scale = _standardise(support, known)
    cases = scaled.reshape(classes * shots, features) / jnp.sqrt(features)
    targets, level = _centred_targets(known, shots)
    if len(cases) <= features:
        gram = cases @ cases.T + PENALTY * jnp.eye(len(cases))
        solution = cases.T @ jax.scipy.linalg.solve(gram, targets, assume_a="pos")
    else:
        gram = cases.T @ cases + PENALTY * jnp.eye(features)
        solution = jax.scipy.linalg.solve(gram, cases.T @ targets, assume_a="pos")
    weights = solution * (scale / jnp.sqrt(features))[:, None]
    return LinearHead(weights, jnp.where(known, level - mean @ weights, -jnp.inf))


def _fit_kernel(support: Float[Array, "classes shots features"], known: Bool[Array, " classes"]) -> KernelHead:
    """Solve ridge regression with a Gaussian kernel, centred over the cases; padded classes have neither weight nor score."""
    classes, shots, features = support.shape
    scaled, mean, scale = _standardise(support, known)
    centres = jnp.clip(scaled, -CLIP, CLIP).reshape(classes * shots, features)
    valid = jnp.repeat(known, shots)
    squared = _squared_distances(centres, centres)
    pairs = jnp.triu(valid[:, None] & valid[None], 1)
    median = jnp.nanmedian(jnp.where(pairs, squared, jnp.nan))
    squared_width = jnp.where(median > 0, median, 1)  # not above 0: half of the cases are equal, or there is one
    kernel = jnp.exp(squared / (-2 * squared_width))
    share = valid / valid.sum()
    centring = jnp.diag(valid.astype(kernel.dtype)) - valid[:, None] * share[None]
    gram = centring @ kernel @ centring
    size = jnp.trace(gram) / valid.sum()
    differ = size > 1e-6  # otherwise all cases are equal, but for rounding
    targets, level = _centred_targets(known, shots)
    penalised = gram / jnp.where(differ, size, 1) + KERNEL_PENALTY * jnp.eye(len(gram))
    weights = jax.scipy.linalg.solve(penalised, targets, assume_a="pos") * jnp.where(differ, 1 / size, 0)
    return KernelHead(mean, scale, centres, squared_width, weights, jnp.where(known, level - share @ kernel @ weights, -jnp.inf))


HEADS = {"kernel": _fit_kernel, "ridge": _fit_ridge, "centroid": _fit_centroid}


def _centred_targets(known: Bool[Array, " classes"], shots: int) -> tuple[Float[Array, "cases classes"], Float[Array, ""]]:
    """Return the indicators of the classes less their mean, 0 for padded classes, and the mean."""
    level = 1 / known.sum()
    return jnp.repeat(jnp.eye(len(known)) - level, shots, axis=0) * jnp.repeat(known, shots)[:, None], level


def _squared_distances(a: Float[Array, "m features"], b: Float[Array, "n features"]) -> Float[Array, "m n"]:
    return jnp.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0)
