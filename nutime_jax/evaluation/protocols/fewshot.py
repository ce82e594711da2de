"""Few-shot tasks on frozen features: heads fitted on some cases of every class, all tasks of a set in one program."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import FeatureSet

TASKS = 100
HEADS = ("centroid", "ridge")
PENALTY = 0.1
"""Of the ridge head, beside a mean squared norm of 1 of the scaled cases; chosen within the train splits of 32 UCR sets (0.01, 0.1, 1),
since a task has too few cases to choose it by."""
BLOCK = 1024
"""Test cases scored at once."""


def fewshot_metrics(
    train: FeatureSet, test: FeatureSet, *, shots: int = 5, tasks: int = TASKS, head: str = "ridge", seed: int = 0
) -> dict[str, float]:
    """Accuracy on the whole test split of a head that knows `shots` training cases of every class, over many draws.

    Features are standardised with the statistics of the cases drawn. The release draws its test cases too, as many as it
    trains on, which adds noise, and takes what there is of a class that has fewer cases than shots.

    Args:
        shots: cases drawn of every class.
        tasks: draws; that of a task depends on the seed and the task alone.
        head: "centroid" (nearest class mean) or "ridge" (least squares, fixed penalty).
        seed: of the draws.

    Returns:
        "accuracy", the mean over tasks; "std", their standard deviation (ddof 1, 0 for one task); "stderr", that of the
        mean. Draws overlap, so "stderr" says how well the mean over all draws from *this* training split is known.

    Raises:
        InputError: a class has fewer training cases than shots, or an option is out of range.
    """
    accuracies = task_accuracies(train, test, shots=shots, tasks=tasks, head=head, seed=seed)
    std = float(accuracies.std(ddof=1)) if tasks > 1 else 0.0
    return {"accuracy": float(accuracies.mean()), "std": std, "stderr": std / tasks**0.5}


def task_accuracies(
    train: FeatureSet, test: FeatureSet, *, shots: int = 5, tasks: int = TASKS, head: str = "ridge", seed: int = 0
) -> Float[np.ndarray, " {tasks}"]:
    """Accuracy of every task; see `fewshot_metrics`.

    The programs depend on the shots, the tasks, the width of the features and the number of classes (rounded up to a power
    of two), not on the numbers of cases.
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
    weights, bias = _fit_tasks(features[places], known, head=head)
    wanted = np.searchsorted(classes, test.labels)
    wanted[classes[np.minimum(wanted, len(classes) - 1)] != test.labels] = -1  # a class nobody can know
    right = 0
    for begin in range(0, len(wanted), BLOCK):
        block = np.asarray(test.features[begin : begin + BLOCK], np.float32)
        blank = min(BLOCK, 1 << max(len(wanted) - 1, 63).bit_length()) - len(block)
        block, codes = np.pad(block, ((0, blank), (0, 0))), np.pad(wanted[begin : begin + BLOCK], (0, blank), constant_values=-1)
        right = right + np.asarray(_count_right(weights, bias, block, codes))
    return right / len(wanted)


def draw_tasks(labels: np.ndarray, *, shots: int, tasks: int, seed: int = 0) -> Int[np.ndarray, "{tasks} classes {shots}"]:
    """Places of the cases of every task, without repetition, classes in sorted order.

    A task's draw shuffles all cases and takes the first of every class, so that its draw of one shot is part of its draw
    of five.

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


@partial(jax.jit, static_argnames="head")
def _fit_tasks(
    support: Float[Array, "tasks classes shots features"], known: Bool[Array, " classes"], *, head: str
) -> tuple[Float[Array, "tasks features classes"], Float[Array, "tasks classes"]]:
    fit = {"centroid": _fit_centroid, "ridge": _fit_ridge}[head]
    with jax.default_matmul_precision("highest"):
        return jax.vmap(partial(fit, known=known))(support)


@jax.jit
def _count_right(
    weights: Float[Array, "tasks features classes"],
    bias: Float[Array, "tasks classes"],
    features: Float[Array, "cases features"],
    codes: Int[Array, " cases"],
) -> Int[Array, " tasks"]:
    place = jnp.arange(bias.shape[1])[:, None]

    def count(weight, shift):
        scores = weight.T @ features.T + shift[:, None]
        own = jnp.take_along_axis(scores, jnp.maximum(codes, 0)[None], axis=0)
        # The first of equal scores counts, as in an argmax, which is slow over short axes.
        return ((codes >= 0) & ((scores < own) | ((scores == own) & (place >= codes[None]))).all(0)).sum()

    with jax.default_matmul_precision("highest"):
        return jax.vmap(count)(weights, bias)


def _standardise(
    support: Float[Array, "classes shots features"], known: Bool[Array, " classes"]
) -> tuple[Float[Array, "classes shots features"], Float[Array, " features"], Float[Array, " features"]]:
    """Cases scaled, those of unknown classes zero, and the mean and the inverse scale that did it."""
    share = (known / (known.sum() * support.shape[1]))[:, None, None]
    mean = (share * support).sum((0, 1))
    centred = (support - mean[None, None]) * known[:, None, None]
    std = jnp.sqrt((share * centred**2).sum((0, 1)))
    # Rounding alone must not become a feature: a feature that is constant over the cases drawn counts as it is.
    scale = jnp.where(std > 1e-6 * jnp.abs(mean), 1 / jnp.where(std > 0, std, 1), 1)
    return centred * scale[None, None], mean, scale


def _fit_centroid(
    support: Float[Array, "classes shots features"], known: Bool[Array, " classes"]
) -> tuple[Float[Array, "features classes"], Float[Array, " classes"]]:
    """The nearest centroid as a linear score: the square of the case itself is the same for all classes."""
    scaled, mean, scale = _standardise(support, known)
    centroids = scaled.mean(1)
    weights = centroids * scale[None]
    bias = -weights @ mean - (centroids**2).sum(1) / 2
    return weights.T, jnp.where(known, bias, -jnp.inf)


def _fit_ridge(
    support: Float[Array, "classes shots features"], known: Bool[Array, " classes"]
) -> tuple[Float[Array, "features classes"], Float[Array, " classes"]]:
    """Least squares through the Gram matrix of the cases; those of unknown classes are zero and have no part in it."""
    classes, shots, features = support.shape
    scaled, mean, scale = _standardise(support, known)
    cases = scaled.reshape(classes * shots, features) / jnp.sqrt(features)
    level = 1 / known.sum()
    targets = jnp.repeat(jnp.eye(classes) - level, shots, axis=0) * jnp.repeat(known, shots)[:, None]
    if len(cases) <= features:
        gram = cases @ cases.T + PENALTY * jnp.eye(len(cases))
        solution = cases.T @ jax.scipy.linalg.solve(gram, targets, assume_a="pos")
    else:
        gram = cases.T @ cases + PENALTY * jnp.eye(features)
        solution = jax.scipy.linalg.solve(gram, cases.T @ targets, assume_a="pos")
    weights = solution * (scale / jnp.sqrt(features))[:, None]
    return weights, jnp.where(known, level - mean @ weights, -jnp.inf)
