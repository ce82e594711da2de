"""Fine-tuned networks side by side: one for each seed and learning rate, trained by one program.

A network's arrays are a flat dictionary, "collection/module/…/name" -> array. What the members do not train is held once.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from nutime_jax.config import TuningSettings
from nutime_jax.core.windows import window_offset_starts
from nutime_jax.errors import extra
from nutime_jax.finetuning.packed import PackedCases, Views, class_mask, draw_views, whole_views
from nutime_jax.models.heads import Classifier
from nutime_jax.models.layers import uniform_fan_in

with extra("train"):
    import optax

Flat = dict[str, jax.Array]
FRESH = ("params/head", "params/encoder/embedding/fusion")
"""Where the names of arrays begin that no pretraining has seen: the head and its norm; the fusion of channels and its norm."""


class Folds(NamedTuple):
    """Who trains and who validates, a row a seed: places of cases, (seeds, capacity), and how many of them count."""

    train: jax.Array
    train_count: jax.Array
    valid: jax.Array
    valid_count: jax.Array


class Score(NamedTuple):
    """accuracy and mean loss on the validating cases."""

    accuracy: jax.Array
    loss: jax.Array


class Network(NamedTuple):
    """weights: what is trained. statistics: running statistics of a BatchNorm, if any."""

    weights: Flat
    statistics: Flat


class Member(NamedTuple):
    """One network in training, and its best epoch so far; every leaf of a group leads with (seeds, rates).

    moments: of Adam. epoch: of the best, from 1; 0 is none yet. stale: epochs since.
    """

    now: Network
    moments: Any
    best: Network
    score: Score
    epoch: jax.Array
    stale: jax.Array


class Report(NamedTuple):
    """What the host sees of an epoch, (seeds, rates) each: training loss, score, the best epoch so far, whether it stopped."""

    loss: jax.Array
    score: Score
    best: Score
    best_epoch: jax.Array
    stopped: jax.Array


class Numbers(NamedTuple):
    """Settings that are arguments of the program: another value compiles nothing; see `TuningSettings`."""

    learning_rates: jax.Array
    epochs: jax.Array
    warmup_fraction: jax.Array
    weight_decay: jax.Array
    layer_decay: jax.Array
    label_smoothing: jax.Array
    patience: jax.Array


def numbers_of(settings: TuningSettings) -> Numbers:
    """The numbers among the settings."""
    return Numbers(*(np.asarray(getattr(settings, name), _DTYPES.get(name, np.float32)) for name in Numbers._fields))


_DTYPES = {"epochs": np.int32, "patience": np.int32}


def split_encoder(network: Classifier, encoder: Any) -> tuple[Flat, Flat]:
    """The encoder's arrays: those that members train, and those that they share. A fusion of channels is always fresh."""
    known = flatten_dict({name: {"encoder": tree} for name, tree in encoder.items()}, sep="/")
    known = {name: leaf for name, leaf in known.items() if not name.startswith(FRESH)}
    trained = {name: leaf for name, leaf in known.items() if name.startswith("params/") and not network.frozen}
    return trained, {name: leaf for name, leaf in known.items() if name not in trained}


@partial(jax.jit, static_argnames=("network", "channels", "size", "learning_rates"))
def create_members(trained: Flat, seeds: jax.Array, *, network: Classifier, channels: int, size: int, learning_rates: int) -> Member:
    """Members at the start: the encoder's weights, and fresh ones of each seed, the same for every rate.

    Args:
        trained: the encoder's arrays that members train.
        channels: of a case.
        size: points of a view.
        learning_rates: how many.
    """

    def create(seed):
        fresh = _draw_fresh(seed, network=network, channels=channels, size=size)
        statistics = {name: leaf for name, leaf in fresh.items() if name.startswith("batch_stats/")}
        start = Network({**trained, **{name: leaf for name, leaf in fresh.items() if name not in statistics}}, statistics)
        moments, never = optax.scale_by_adam().init(start.weights), Score(jnp.float32(-1), jnp.float32(jnp.inf))
        return Member(start, moments, start, never, epoch=jnp.int32(0), stale=jnp.int32(0))

    return jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], learning_rates, axis=1), jax.vmap(create)(seeds))


@partial(jax.jit, static_argnames=("network", "crop_ratio", "size", "batch_size", "precision"), donate_argnames="members")
def run_epoch(
    members: Member,
    shared: Flat,
    cases: PackedCases,
    classes: jax.Array,
    folds: Folds,
    seeds: jax.Array,
    numbers: Numbers,
    epoch: jax.Array,
    *,
    network: Classifier,
    crop_ratio: tuple[float, float],
    size: int,
    batch_size: int,
    precision: str,
) -> tuple[Member, Report]:
    """One pass of every member over its training cases, and its score on the validating ones.

    Order, crops and dropout depend on the seed and the epoch alone, so a member does what it would do alone. How many
    cases and classes there are is an argument, not a shape: sets that fit the same `PackedCases` share the program.
    """
    run = partial(_run_member, network=network, crop_ratio=crop_ratio, size=size, batch_size=batch_size)
    each_rate, each_fold = Numbers(0, *[None] * 6), Folds(0, None, 0, None)
    over_rates = jax.vmap(run, in_axes=(0, None, None, None, None, None, each_rate, None))
    over_seeds = jax.vmap(over_rates, in_axes=(0, None, None, None, each_fold, 0, None, None))
    with jax.default_matmul_precision(precision):
        return over_seeds(members, shared, cases, classes, folds, seeds, numbers, epoch)


@partial(jax.jit, static_argnames=("network", "size", "batch_size", "num_window_offsets"))
def predict_cases(
    members: Network,
    shared: Flat,
    cases: PackedCases,
    count: jax.Array,
    classes: jax.Array,
    *,
    network: Classifier,
    size: int,
    batch_size: int,
    num_window_offsets: int = 1,
) -> jax.Array:
    """Probabilities of the first `count` cases, averaged over members (leading axis) and window offsets, (cases, classes)."""
    starts = window_offset_starts(num_window_offsets, network.encoder.config.window_stride)

    def predict(member: Network, views: Views) -> jax.Array:
        return jax.nn.softmax(_logits(member, shared, views, classes, network=network))

    def one_batch(i, probabilities):
        first = i * batch_size
        whole = whole_views(cases, first + jnp.arange(batch_size), size=size + starts[-1])
        cut = [whole._replace(values=whole.values[..., start : start + size]) for start in starts]
        mean = sum(jax.vmap(predict, in_axes=(0, None))(members, views).mean(0) for views in cut) / num_window_offsets
        return jax.lax.dynamic_update_slice(probabilities, mean, (first, 0))

    with jax.default_matmul_precision("highest"):
        empty = jnp.zeros((len(cases.labels), network.classes))
        return jax.lax.fori_loop(0, -(-count // batch_size), one_batch, empty)


def rate_factor(progress: jax.Array, *, warmup_fraction: jax.Array) -> jax.Array:
    """Share of the peak learning rate: a line up over the first `warmup_fraction` of the run, then half a cosine down to 0."""
    falling = 0.5 * (1 + jnp.cos(jnp.pi * (progress - warmup_fraction) / (1 - warmup_fraction)))
    return jnp.where(progress < warmup_fraction, progress / jnp.maximum(warmup_fraction, 1e-9), falling)


def layer_factor(name: str, *, depth: int, decay: jax.Array) -> jax.Array | float:
    """Factor of the learning rate of an array: the head and the final norm have 1, every block below it `decay` less."""
    if name.startswith(FRESH) or name.startswith("params/encoder/norm/"):
        return 1.0
    _, _, block = name.partition("params/encoder/block_")
    below = depth - int(block.split("/")[0]) if block else depth + 1
    return decay**below


def _draw_fresh(seed: jax.Array, *, network: Classifier, channels: int, size: int) -> Flat:
    """What no pretraining has seen."""
    key = jax.random.key(seed)
    flat = flatten_dict(network.init(key, jnp.zeros((2, channels, size))), sep="/")
    fresh = {name: leaf for name, leaf in flat.items() if name.startswith((*FRESH, "batch_stats/"))}
    return {**fresh, **_draw_head(key, *flat["params/head/kernel"].shape)}


def _draw_head(key: jax.Array, features: int, classes: int) -> Flat:
    """The head as `Linear` draws it, but class by class: a class's weights do not depend on how many there are."""

    def draw(number):
        kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, number))
        return uniform_fan_in(features)(kernel_key, (features,)), uniform_fan_in(features)(bias_key, ())

    kernel, bias = jax.vmap(draw, out_axes=(1, 0))(jnp.arange(classes))
    return {"params/head/kernel": kernel, "params/head/bias": bias}


def _run_member(
    member: Member,
    shared: Flat,
    cases: PackedCases,
    classes: jax.Array,
    folds: Folds,
    seed: jax.Array,
    numbers: Numbers,
    epoch: jax.Array,
    *,
    network: Classifier,
    crop_ratio: tuple[float, float],
    size: int,
    batch_size: int,
) -> tuple[Member, Report]:
    """An epoch of one network; the loops have as many turns as the set needs."""
    order_key, *step_keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), epoch), 3)
    order = _shuffle(order_key, folds.train, folds.train_count)
    steps = -(-folds.train_count // batch_size)
    adam = optax.scale_by_adam()
    factors = {name: layer_factor(name, depth=network.encoder.config.depth, decay=numbers.layer_decay) for name in member.now.weights}

    def loss_fn(weights, statistics, views, labels, key):
        logits, updated = _apply(Network(weights, statistics), shared, views, network=network, train=True, key=key)
        return _losses(logits, labels, classes, label_smoothing=numbers.label_smoothing).mean(), updated

    def update(i, carry):
        now, moments, total = carry
        rows = order[(i * batch_size + jnp.arange(batch_size)) % folds.train_count]
        view_key, dropout_key = (jax.random.fold_in(key, i) for key in step_keys)
        views = draw_views(view_key, cases, rows, size=size, ratio=crop_ratio)
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, statistics), grads = gradient(now.weights, now.statistics, views, cases.labels[rows], dropout_key)
        updates, moments = adam.update(grads, moments)
        progress = (epoch * steps + i + 0.5) / (numbers.epochs * steps)
        rate = numbers.learning_rates * rate_factor(progress, warmup_fraction=numbers.warmup_fraction)
        updates = {name: updates[name] + numbers.weight_decay * leaf for name, leaf in now.weights.items()}  # AdamW
        weights = {name: leaf - rate * factors[name] * updates[name] for name, leaf in now.weights.items()}
        return Network(weights, statistics), moments, total + loss / steps

    now, moments, loss = jax.lax.fori_loop(0, steps, update, (member.now, member.moments, jnp.zeros(())))
    score = _validate(now, shared, cases, classes, folds, network=network, size=size, batch_size=batch_size)
    # Where nobody validates, only the training loss can tell that a network is lost.
    score = score._replace(loss=jnp.where(jnp.isfinite(loss), score.loss, jnp.nan))
    member = _keep_best(member._replace(now=now, moments=moments), score, epoch + 1, folds.valid_count, patience=numbers.patience)
    stopped = (member.stale >= numbers.patience) & (numbers.patience > 0)
    return member, Report(loss, score, member.score, member.epoch, stopped)


def _keep_best(member: Member, score: Score, epoch: jax.Array, valid_count: jax.Array, *, patience: jax.Array) -> Member:
    """Takes the present weights if they validate better: by accuracy, then by loss; always where nobody validates.

    A member that has stopped takes nothing more: what becomes of it does not depend on how long the others go on.
    """
    better = (score.accuracy > member.score.accuracy) | ((score.accuracy == member.score.accuracy) & (score.loss < member.score.loss))
    running = (patience == 0) | (member.stale < patience)
    take = ((better & running) | (valid_count == 0)) & jnp.isfinite(score.loss)
    chosen = (member.now, score, epoch), (member.best, member.score, member.epoch)
    best, score, epoch = jax.tree.map(lambda new, old: jnp.where(take, new, old), *chosen)
    return member._replace(best=best, score=score, epoch=epoch, stale=jnp.where(take, 0, member.stale + 1))


def _validate(now: Network, shared, cases, classes, folds: Folds, *, network: Classifier, size: int, batch_size: int) -> Score:
    def one_batch(i, sums):
        places = i * batch_size + jnp.arange(batch_size)
        counts = places < folds.valid_count
        rows = folds.valid[jnp.minimum(places, len(folds.valid) - 1)]
        logits = _logits(now, shared, whole_views(cases, rows, size=size), classes, network=network)
        right = (logits.argmax(-1) == cases.labels[rows]) & counts
        losses = jnp.where(counts, _losses(logits, cases.labels[rows], classes, label_smoothing=0.0), 0)
        return Score(sums.accuracy + right.sum(), sums.loss + losses.sum())

    start = Score(jnp.zeros((), jnp.int32), jnp.zeros(()))
    sums = jax.lax.fori_loop(0, -(-folds.valid_count // batch_size), one_batch, start)
    count = jnp.maximum(folds.valid_count, 1)
    return Score(sums.accuracy / count, sums.loss / count)


def _shuffle(key: jax.Array, rows: jax.Array, count: jax.Array) -> jax.Array:
    """The first `count` rows in random order, then the others; no draw depends on how many others there are."""
    places = jnp.arange(len(rows))
    draws = jax.vmap(lambda place: jax.random.uniform(jax.random.fold_in(key, place)))(places)
    return rows[jnp.argsort(jnp.where(places < count, draws, 2.0))]


def _logits(now: Network, shared: Flat, views: Views, classes: jax.Array, *, network: Classifier) -> jax.Array:
    logits = _apply(now, shared, views, network=network, train=False)[0]
    return jnp.where(class_mask(network.classes, classes)[None], logits, -1e30)


def _apply(now: Network, shared: Flat, views: Views, *, network: Classifier, train: bool, key: jax.Array | None = None):
    """Logits of all outputs, and the running statistics after them."""
    variables = unflatten_dict({**shared, **now.weights, **now.statistics}, sep="/")
    rngs = {} if key is None else {"dropout": key}
    logits, updated = network.apply(variables, *views, train=train, rngs=rngs, mutable=["batch_stats"])
    return logits, {**now.statistics, **flatten_dict(updated, sep="/")}


def _losses(logits: jax.Array, labels: jax.Array, classes: jax.Array, *, label_smoothing: jax.Array | float) -> jax.Array:
    """Cross-entropy of each case; outputs that are no class have no part, and a label that is no class costs nothing."""
    mask = class_mask(logits.shape[-1], classes)
    targets = (1 - label_smoothing) * jax.nn.one_hot(labels, len(mask)) + label_smoothing * (mask / classes)[None]
    scores = jax.nn.log_softmax(jnp.where(mask[None], logits, -1e30))
    return jnp.where(labels < 0, 0, -jnp.where(mask[None], targets * scores, 0).sum(-1))
