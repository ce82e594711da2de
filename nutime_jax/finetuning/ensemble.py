"""Ensembles of fine-tuned networks: one per seed and learning rate, trained together by vmap.

The arrays of a network are a flat dictionary, "collection/module/…/name" -> array. Arrays that members do not train are shared.
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
from nutime_jax.finetuning.packed import EvalViews, PackedCases, class_mask, full_views, sample_views
from nutime_jax.models.heads import Classifier
from nutime_jax.models.layers import uniform_fan_in

with extra("train"):
    import optax

Flat = dict[str, jax.Array]
NEW_PARAM_PREFIXES = ("params/head", "params/encoder/embedding/fusion")
"""Prefixes of the arrays without pretraining: the head with its norm, and the fusion of channels with its norm."""


class TrainValSplits(NamedTuple):
    """Training and validation cases per seed: indices, (seeds, capacity), of which the first `…_count` are valid."""

    train: jax.Array
    train_count: jax.Array
    valid: jax.Array
    valid_count: jax.Array


class Score(NamedTuple):
    """Accuracy and mean loss on the validation cases."""

    accuracy: jax.Array
    loss: jax.Array


class Network(NamedTuple):
    """Trained weights, and running statistics of BatchNorm, if any."""

    weights: Flat
    statistics: Flat


class Member(NamedTuple):
    """A network in training, and its best epoch. In an ensemble all leaves have leading axes (seeds, learning rates).

    opt_state: of `make_optimizer`. epoch: number of the best epoch, from 1; 0 if there is none yet.
    """

    current: Network
    opt_state: Any
    best: Network
    score: Score
    epoch: jax.Array
    epochs_since_best: jax.Array


class EpochReport(NamedTuple):
    """Results of an epoch, (seeds, learning rates) each: training loss, score, best score and epoch, early stop."""

    loss: jax.Array
    score: Score
    best: Score
    best_epoch: jax.Array
    stopped: jax.Array


class Hyperparams(NamedTuple):
    """Settings that are arguments of the compiled function: other values need no compilation. See `TuningSettings`.

    learning_rate: peaks, (learning rates,) for an ensemble.
    """

    learning_rate: jax.Array
    epochs: jax.Array
    warmup_fraction: jax.Array
    weight_decay: jax.Array
    layer_decay: jax.Array
    label_smoothing: jax.Array
    patience: jax.Array


class EpochInputs(NamedTuple):
    """Inputs of an epoch besides the members.

    shared: arrays that members do not train. classes: number of classes. seed: (seeds,). epoch: from 0.
    """

    shared: Flat
    cases: PackedCases
    classes: jax.Array
    splits: TrainValSplits
    seed: jax.Array
    hyperparams: Hyperparams
    epoch: jax.Array


def hyperparams(settings: TuningSettings) -> Hyperparams:
    """Return the numeric settings as arrays."""
    return Hyperparams(
        learning_rate=np.asarray(settings.learning_rates, np.float32),
        epochs=np.int32(settings.epochs),
        warmup_fraction=np.float32(settings.warmup_fraction),
        weight_decay=np.float32(settings.weight_decay),
        layer_decay=np.float32(settings.layer_decay),
        label_smoothing=np.float32(settings.label_smoothing),
        patience=np.int32(settings.patience),
    )


def split_encoder(network: Classifier, encoder: Any) -> tuple[Flat, Flat]:
    """Split the encoder's arrays into those that members train and those that they share, without the fusion of channels."""
    flat = flatten_dict({name: {"encoder": tree} for name, tree in encoder.items()}, sep="/")
    pretrained = {name: leaf for name, leaf in flat.items() if not name.startswith(NEW_PARAM_PREFIXES)}
    trained = {name: leaf for name, leaf in pretrained.items() if name.startswith("params/") and not network.frozen}
    return trained, {name: leaf for name, leaf in pretrained.items() if name not in trained}


@partial(jax.jit, static_argnames=("network", "channels", "size", "num_rates"))
def create_members(trained: Flat, seeds: jax.Array, *, network: Classifier, channels: int, size: int, num_rates: int) -> Member:
    """Return initial members: the encoder's weights, and new weights per seed, equal for all learning rates.

    Args:
        trained: the encoder's arrays that members train.
        channels: channels per case.
        size: length of a view in time points.
        num_rates: number of learning rates.
    """

    def create(seed):
        new = _init_new_arrays(seed, network=network, channels=channels, size=size)
        statistics = {name: leaf for name, leaf in new.items() if name.startswith("batch_stats/")}
        weights = {**trained, **{name: leaf for name, leaf in new.items() if name not in statistics}}
        optimizer = make_optimizer(optax.constant_schedule(0.0), weight_decay=0.0, factors={})
        return Member(
            current=Network(weights, statistics),
            opt_state=optimizer.init(weights),
            best=Network(weights, statistics),
            score=Score(jnp.float32(-1), jnp.float32(jnp.inf)),
            epoch=jnp.int32(0),
            epochs_since_best=jnp.int32(0),
        )

    return jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], num_rates, axis=1), jax.vmap(create)(seeds))


@partial(jax.jit, static_argnames=("network", "crop_ratio", "size", "batch_size", "precision"), donate_argnames="members")
def run_epoch(
    members: Member,
    inputs: EpochInputs,
    *,
    network: Classifier,
    crop_ratio: tuple[float, float],
    size: int,
    batch_size: int,
    precision: str,
) -> tuple[Member, EpochReport]:
    """Train every member for one epoch and score it on its validation cases.

    Order, crops and dropout depend only on the seed and the epoch, so a member does not depend on the others. The numbers of
    cases and classes are arguments, not shapes: datasets with equal capacities of `PackedCases` share the compiled function.
    """
    run = partial(_run_member, network=network, crop_ratio=crop_ratio, size=size, batch_size=batch_size)
    unmapped = EpochInputs(**dict.fromkeys(EpochInputs._fields))
    rate_axes = Hyperparams(**dict.fromkeys(Hyperparams._fields))._replace(learning_rate=0)
    split_axes = TrainValSplits(train=0, train_count=None, valid=0, valid_count=None)
    over_rates = jax.vmap(run, in_axes=(0, unmapped._replace(hyperparams=rate_axes)))
    over_seeds = jax.vmap(over_rates, in_axes=(0, unmapped._replace(splits=split_axes, seed=0)))
    with jax.default_matmul_precision(precision):
        return over_seeds(members, inputs)


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
    """Return probabilities of the first `count` cases, averaged over members (leading axis) and window offsets.

    Returns:
        Shape (capacity of cases, capacity of classes).
    """
    starts = window_offset_starts(num_window_offsets, network.encoder.config.window_stride)

    def predict(member: Network, views: EvalViews) -> jax.Array:
        return jax.nn.softmax(_logits(member, shared, views, classes, network=network))

    def predict_batch(i, probabilities):
        first = i * batch_size
        full = full_views(cases, first + jnp.arange(batch_size), size=size + starts[-1])
        shifted = [full._replace(values=full.values[..., start : start + size]) for start in starts]
        mean = sum(jax.vmap(predict, in_axes=(0, None))(members, views).mean(0) for views in shifted) / num_window_offsets
        return jax.lax.dynamic_update_slice(probabilities, mean, (first, 0))

    with jax.default_matmul_precision("highest"):
        empty = jnp.zeros((len(cases.labels), network.classes))
        return jax.lax.fori_loop(0, -(-count // batch_size), predict_batch, empty)


def learning_rate_schedule(peak: jax.Array, *, warmup_fraction: jax.Array, steps: jax.Array) -> optax.Schedule:
    """Return linear warm-up to `peak`, then cosine decay to 0, at the middle of each step.

    Numbers of steps are traced, and optax needs constants: its schedules run on the fraction of their phase.
    """
    warmup, decay = optax.linear_schedule(0.0, peak, 1), optax.cosine_decay_schedule(peak, 1)

    def schedule(count):
        progress = (count + 0.5) / steps
        rising, falling = progress / jnp.maximum(warmup_fraction, 1e-9), (progress - warmup_fraction) / (1 - warmup_fraction)
        return jnp.where(progress < warmup_fraction, warmup(rising), decay(falling))

    return schedule


def make_optimizer(schedule: optax.Schedule, *, weight_decay: jax.Array | float, factors: Flat) -> optax.GradientTransformation:
    """Return AdamW with a factor of the learning rate per array."""
    scale = optax.stateless(lambda updates, _: {name: factors[name] * update for name, update in updates.items()})
    return optax.chain(optax.adamw(schedule, weight_decay=weight_decay), scale)


def layer_factor(name: str, *, depth: int, decay: jax.Array) -> jax.Array | float:
    """Return the learning-rate factor of an array: 1 for the head and the final norm, times `decay` per block below."""
    if name.startswith(NEW_PARAM_PREFIXES) or name.startswith("params/encoder/norm/"):
        return 1.0
    _, _, block = name.partition("params/encoder/block_")
    below = depth - int(block.split("/")[0]) if block else depth + 1
    return decay**below


def _init_new_arrays(seed: jax.Array, *, network: Classifier, channels: int, size: int) -> Flat:
    """Return the arrays without pretraining."""
    key = jax.random.key(seed)
    flat = flatten_dict(network.init(key, jnp.zeros((2, channels, size))), sep="/")
    new = {name: leaf for name, leaf in flat.items() if name.startswith((*NEW_PARAM_PREFIXES, "batch_stats/"))}
    return {**new, **_init_head(key, *flat["params/head/kernel"].shape)}


def _init_head(key: jax.Array, features: int, classes: int) -> Flat:
    """Initialise the head as `Linear` does, per class: the weights of a class do not depend on the number of classes."""

    def init_class(number):
        kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, number))
        return uniform_fan_in(features)(kernel_key, (features,)), uniform_fan_in(features)(bias_key, ())

    kernel, bias = jax.vmap(init_class, out_axes=(1, 0))(jnp.arange(classes))
    return {"params/head/kernel": kernel, "params/head/bias": bias}


def _run_member(
    member: Member,
    inputs: EpochInputs,
    *,
    network: Classifier,
    crop_ratio: tuple[float, float],
    size: int,
    batch_size: int,
) -> tuple[Member, EpochReport]:
    """Run an epoch of one network. The number of steps depends on the dataset."""
    cases, splits, settings = inputs.cases, inputs.splits, inputs.hyperparams
    order_key, *step_keys = jax.random.split(jax.random.fold_in(jax.random.key(inputs.seed), inputs.epoch), 3)
    order = _shuffle(order_key, splits.train, splits.train_count)
    steps = -(-splits.train_count // batch_size)
    depth = network.encoder.config.depth
    optimizer = make_optimizer(
        learning_rate_schedule(settings.learning_rate, warmup_fraction=settings.warmup_fraction, steps=settings.epochs * steps),
        weight_decay=settings.weight_decay,
        factors={name: layer_factor(name, depth=depth, decay=settings.layer_decay) for name in member.current.weights},
    )

    def loss_fn(weights, statistics, views, labels, key):
        logits, updated = _apply(Network(weights, statistics), inputs.shared, views, network=network, train=True, key=key)
        return _losses(logits, labels, inputs.classes, label_smoothing=settings.label_smoothing).mean(), updated

    def update(i, carry):
        current, opt_state, total = carry
        rows = order[(i * batch_size + jnp.arange(batch_size)) % splits.train_count]
        view_key, dropout_key = (jax.random.fold_in(key, i) for key in step_keys)
        views = sample_views(view_key, cases, rows, size=size, ratio=crop_ratio)
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, statistics), grads = gradient(current.weights, current.statistics, views, cases.labels[rows], dropout_key)
        updates, opt_state = optimizer.update(grads, opt_state, current.weights)
        return Network(optax.apply_updates(current.weights, updates), statistics), opt_state, total + loss / steps

    current, opt_state, loss = jax.lax.fori_loop(0, steps, update, (member.current, member.opt_state, jnp.zeros(())))
    score = _validate(current, inputs, network=network, size=size, batch_size=batch_size)
    # Without validation cases only the training loss shows divergence.
    score = score._replace(loss=jnp.where(jnp.isfinite(loss), score.loss, jnp.nan))
    trained = member._replace(current=current, opt_state=opt_state)
    member = _keep_best(trained, score, inputs.epoch + 1, splits.valid_count, patience=settings.patience)
    stopped = (member.epochs_since_best >= settings.patience) & (settings.patience > 0)
    return member, EpochReport(loss, score, member.score, member.epoch, stopped)


def _keep_best(member: Member, score: Score, epoch: jax.Array, valid_count: jax.Array, *, patience: jax.Array) -> Member:
    """Keep the current weights if they validate better, by accuracy, then by loss; always without validation cases.

    A stopped member keeps its best epoch: its result does not depend on how long others train.
    """
    better = (score.accuracy > member.score.accuracy) | ((score.accuracy == member.score.accuracy) & (score.loss < member.score.loss))
    running = (patience == 0) | (member.epochs_since_best < patience)
    keep = ((better & running) | (valid_count == 0)) & jnp.isfinite(score.loss)
    new, old = (member.current, score, epoch), (member.best, member.score, member.epoch)
    best, score, epoch = jax.tree.map(lambda new, old: jnp.where(keep, new, old), new, old)
    epochs_since_best = jnp.where(keep, 0, member.epochs_since_best + 1)
    return member._replace(best=best, score=score, epoch=epoch, epochs_since_best=epochs_since_best)


def _validate(current: Network, inputs: EpochInputs, *, network: Classifier, size: int, batch_size: int) -> Score:
    cases, splits = inputs.cases, inputs.splits

    def add_batch(i, sums):
        indices = i * batch_size + jnp.arange(batch_size)
        counts = indices < splits.valid_count
        rows = splits.valid[jnp.minimum(indices, len(splits.valid) - 1)]
        logits = _logits(current, inputs.shared, full_views(cases, rows, size=size), inputs.classes, network=network)
        correct = (logits.argmax(-1) == cases.labels[rows]) & counts
        losses = jnp.where(counts, _losses(logits, cases.labels[rows], inputs.classes, label_smoothing=0.0), 0)
        return Score(sums.accuracy + correct.sum(), sums.loss + losses.sum())

    start = Score(jnp.zeros((), jnp.int32), jnp.zeros(()))
    sums = jax.lax.fori_loop(0, -(-splits.valid_count // batch_size), add_batch, start)
    count = jnp.maximum(splits.valid_count, 1)
    return Score(sums.accuracy / count, sums.loss / count)


def _shuffle(key: jax.Array, rows: jax.Array, count: jax.Array) -> jax.Array:
    """Return the first `count` rows in random order, then the others. The order does not depend on the capacity."""
    indices = jnp.arange(len(rows))
    draws = jax.vmap(lambda index: jax.random.uniform(jax.random.fold_in(key, index)))(indices)
    return rows[jnp.argsort(jnp.where(indices < count, draws, 2.0))]


def _logits(current: Network, shared: Flat, views: EvalViews, classes: jax.Array, *, network: Classifier) -> jax.Array:
    logits = _apply(current, shared, views, network=network, train=False)[0]
    return jnp.where(class_mask(network.classes, classes)[None], logits, -1e30)


def _apply(current: Network, shared: Flat, views: EvalViews, *, network: Classifier, train: bool, key: jax.Array | None = None):
    """Return logits of all outputs, and the updated running statistics."""
    variables = unflatten_dict({**shared, **current.weights, **current.statistics}, sep="/")
    rngs = {} if key is None else {"dropout": key}
    logits, updated = network.apply(variables, *views, train=train, rngs=rngs, mutable=["batch_stats"])
    return logits, {**current.statistics, **flatten_dict(updated, sep="/")}


def _losses(logits: jax.Array, labels: jax.Array, classes: jax.Array, *, label_smoothing: jax.Array | float) -> jax.Array:
    """Return the cross-entropy per case over the outputs that are classes; 0 for an unknown label (-1)."""
    mask = class_mask(logits.shape[-1], classes)
    targets = (1 - label_smoothing) * jax.nn.one_hot(labels, len(mask)) + label_smoothing * (mask / classes)[None]
    scores = jax.nn.log_softmax(jnp.where(mask[None], logits, -1e30))
    return jnp.where(labels < 0, 0, -jnp.where(mask[None], targets * scores, 0).sum(-1))
