"""Fine-tuning of an encoder and a head on labelled cases. Test cases choose nothing unless `selection` is "test".

Datasets share compiled functions. An epoch is compiled per combination of capacities: cases (powers of two from 1,024), time
points (from 2**20), classes (from 8) and channels; all archive datasets up to the minimum, with one channel, share one.
Prediction is compiled per classes and channels only, since it splits cases into packs of the minimum capacity.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from nutime_jax.config import TuningSettings
from nutime_jax.data.datasets import Cases
from nutime_jax.distributed.backend import use_backend
from nutime_jax.encoder import Encoder
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.finetuning.channels import ChannelMap, fit_channels
from nutime_jax.finetuning.classifier import FineTunedClassifier, TrainingRecord, build_classifier
from nutime_jax.finetuning.ensemble import (
    EpochInputs,
    EpochReport,
    Flat,
    Member,
    TrainValSplits,
    create_members,
    hyperparams,
    run_epoch,
    split_encoder,
)
from nutime_jax.finetuning.packed import PackedCases, pack_cases
from nutime_jax.models.heads import Classifier
from nutime_jax.models.network import check_num_window_offsets

log = logging.getLogger(__name__)

DEFAULTS = TuningSettings()


class _Prepared(NamedTuple):
    """A dataset on the device: its reduction of channels, classes, cases, and training and validation cases."""

    channels: ChannelMap
    classes: np.ndarray
    packed: PackedCases
    splits: TrainValSplits


class _Trained(NamedTuple):
    """Members after the last epoch, its report, and the number of epochs."""

    members: Member
    report: EpochReport
    epochs: int


@use_backend()
def fine_tune(
    encoder: Encoder,
    train: Cases,
    *,
    settings: TuningSettings = DEFAULTS,
    seed: int = 0,
    test: Cases | None = None,
    only: Sequence[np.ndarray] | None = None,
    progress: Callable[[int, EpochReport], None] | None = None,
) -> FineTunedClassifier:
    """Train a classifier on labelled cases.

    Every member of the ensemble (seed, seed + 1, …) holds out its own validation cases from each class, trains with every
    learning rate, and keeps the epoch and the rate with the best validation accuracy, then loss. Classes of a single case
    train. With fewer than settings.min_validation_cases to hold out, all cases train for all epochs with the middle learning rate.

    Args:
        train: the train split.
        seed: of new weights, validation cases, order, crops and dropout.
        test: the test split, only if settings.selection is "test": it chooses epoch and rate, and all of `train` trains.
        only: indices of the training cases of each member, equally many; all epochs run with the middle learning rate.
        progress: called after every epoch with its number, from 1, and its report.

    Raises:
        InputError: no labels, a single class, test cases under selection "train", or too many window offsets.
        DivergenceError: no member had a finite loss.
    """
    started = time.monotonic()
    settings = _settings_of(encoder, settings)
    _check(train, settings, test)
    encoder = encoder.fit_normalisation(train.series)
    train, test = _normalise(train, encoder), test and _normalise(test, encoder)
    encoder = encoder.for_training(max(case.shape[1] for case in train.series))
    seeds = tuple(range(seed, seed + settings.ensemble_size))
    prepared = _prepare(train, test, seeds, settings, only)
    validated = prepared.splits.valid_count > 0
    if not validated:
        settings = settings.with_middle_rate()
        log.info("no validation: all cases train for %d epochs with learning rate %g", settings.epochs, *settings.learning_rates)
    network = build_classifier(encoder.config, settings, classes=len(prepared.classes))
    check_num_window_offsets(settings.num_window_offsets, network.encoder)
    long = settings.with_min_updates(int(prepared.splits.train_count))
    trained = _train(encoder, network, prepared, seeds, long, progress)
    chosen = _choose_rates(trained.report, validated=validated)
    record = _record(trained, chosen, prepared, seeds, long, validated=validated)
    if settings.refit and validated and test is None:
        trained, record = _refit(encoder, network, prepared, long, trained.report, record)
        chosen = _choose_rates(trained.report, validated=False)
    return FineTunedClassifier(
        config=encoder.config,
        settings=settings,
        classes_=prepared.classes,
        channels=prepared.channels,
        members=_best_arrays(trained.members, chosen, classes=len(prepared.classes)),
        shared=jax.device_get(split_encoder(network, encoder.variables)[1]),
        training=dataclasses.replace(record, seconds=time.monotonic() - started),
    )


def _normalise(cases: Cases, encoder: Encoder) -> Cases:
    return dataclasses.replace(cases, series=[encoder.prepare_case(case, differences=False) for case in cases.series])


def _record(
    trained: _Trained, chosen: list[int], prepared: _Prepared, seeds: tuple[int, ...], settings: TuningSettings, *, validated: bool
) -> TrainingRecord:
    report = trained.report
    return TrainingRecord(
        selection=settings.selection,
        seeds=seeds,
        learning_rates=tuple(settings.learning_rates[i] for i in chosen),
        best_epochs=_pick(report.best_epoch, chosen, int),
        accuracies=_pick(report.best.accuracy, chosen, float) if validated else (),
        losses=_pick(report.best.loss, chosen, float) if validated else (),
        epochs=trained.epochs,
        train_cases=int(prepared.splits.train_count),
        validation_cases=int(prepared.splits.valid_count),
        seconds=0.0,
    )


def _refit(
    encoder: Encoder, network: Classifier, prepared: _Prepared, settings: TuningSettings, report: EpochReport, record: TrainingRecord
) -> tuple[_Trained, TrainingRecord]:
    """Train on all cases, with the learning rate and the number of epochs that are best on average over members."""
    best = int(np.lexsort((report.best.loss.mean(0), -report.best.accuracy.mean(0)))[0])
    epochs = max(1, round(float(report.best_epoch[:, best].mean())))
    every = np.arange(int(prepared.splits.train_count + prepared.splits.valid_count))
    splits = _pad_splits([(every, every[:0])] * len(record.seeds), capacity=prepared.splits.train.shape[1])
    one_rate = dataclasses.replace(settings, learning_rates=(settings.learning_rates[best],))
    trained = _train(encoder, network, prepared._replace(splits=splits), record.seeds, one_rate, None, stop=epochs)
    record = dataclasses.replace(
        record,
        learning_rates=one_rate.learning_rates * len(record.seeds),
        best_epochs=(epochs,) * len(record.seeds),
        accuracies=tuple(map(float, report.best.accuracy[:, best])),
        losses=tuple(map(float, report.best.loss[:, best])),
        train_cases=len(every),
    )
    return trained, record


def stratified_validation_split(labels: np.ndarray, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices of training and of validation cases.

    Every class of two or more cases gives `fraction` of them, at least one and never all; the number does not depend on the seed.
    """
    rng = np.random.default_rng(seed)
    valid = []
    for label in np.unique(labels):
        indices = rng.permutation(np.flatnonzero(labels == label))
        wanted = max(1, round(fraction * len(indices))) if fraction else 0
        valid.append(indices[: min(wanted, len(indices) - 1)])
    valid = np.sort(np.concatenate(valid))
    return np.setdiff1d(np.arange(len(labels)), valid), valid


def _settings_of(encoder: Encoder, settings: TuningSettings) -> TuningSettings:
    """Return the settings with pooling and window offsets of the encoder, unless they are set."""
    pooling = encoder.pooling if settings.pooling == "encoder" else settings.pooling
    return dataclasses.replace(settings, pooling=pooling, num_window_offsets=settings.num_window_offsets or encoder.num_window_offsets)


def _check(train: Cases, settings: TuningSettings, test: Cases | None) -> None:
    if train.labels is None:
        raise InputError("The train split has no labels; fine-tuning needs them.")
    if len(set(train.labels)) < 2:
        raise InputError(f"Every training case has class {str(train.labels[0])!r}; fine-tuning needs two or more classes.")
    if settings.selection == "test" and test is None:
        raise InputError("selection 'test' validates on the test split; pass a dataset with a test split, or choose selection 'train'.")
    if settings.selection == "train" and test is not None:
        raise InputError("selection 'train' uses no test cases; omit the test split, or choose selection 'test'.")
    if test is not None and test.labels is None:
        raise InputError("The test split has no labels; selection 'test' needs them.")


def _prepare(
    train: Cases, test: Cases | None, seeds: tuple[int, ...], settings: TuningSettings, only: Sequence[np.ndarray] | None
) -> _Prepared:
    """Copy the training cases to the device, followed by the test cases if these validate."""
    channels = fit_channels(train.series, limit=settings.max_channels, reduction=settings.reduction, differences=settings.differences)
    classes, codes = np.unique(np.asarray(train.labels, str), return_inverse=True)
    series, labels = [channels.apply(case, name="a case") for case in train.series], [codes]
    if test is not None:
        series += [channels.apply(case, name=f"case {i} of the test split") for i, case in enumerate(test.series)]
        labels.append(_encode_labels(np.asarray(test.labels, str), classes))
    packed = pack_cases(series, np.concatenate(labels))
    every = np.arange(len(series))
    if only is not None:
        pairs = [(np.sort(indices), every[:0]) for indices in only]
    elif test is not None:
        pairs = [np.split(every, [len(codes)])] * len(seeds)
    else:
        pairs = [stratified_validation_split(codes, fraction=settings.validation_fraction, seed=seed) for seed in seeds]
        if len(pairs[0][1]) < settings.min_validation_cases:
            pairs = [(every, every[:0])] * len(seeds)
    return _Prepared(channels, classes, packed, _pad_splits(pairs, capacity=len(packed.labels)))


def _encode_labels(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the index of each label's class; -1 for a class without training cases."""
    indices = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return np.where(classes[indices] == labels, indices, -1)


def _pad_splits(pairs: Sequence[Sequence[np.ndarray]], *, capacity: int) -> TrainValSplits:
    """Stack the training and validation indices of each seed; all seeds have equally many."""
    train, valid = zip(*pairs, strict=True)

    def pad(rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(row, (0, capacity - len(row))) for row in rows]).astype(np.int32)

    return TrainValSplits(pad(train), np.int32(len(train[0])), pad(valid), np.int32(len(valid[0])))


def _train(
    encoder: Encoder,
    network: Classifier,
    prepared: _Prepared,
    seeds: tuple[int, ...],
    settings: TuningSettings,
    progress: Callable[[int, EpochReport], None] | None,
    *,
    stop: int | None = None,
) -> _Trained:
    """Train until every member has stopped, or for `stop` epochs. Only reports are copied to the host."""
    trained, shared = split_encoder(network, encoder.variables)
    options = {"network": network, "size": encoder.config.length}
    counts = {"channels": prepared.channels.channels, "num_rates": len(settings.learning_rates)}
    members = create_members(trained, np.asarray(seeds), **counts, **options)
    options |= {"crop_ratio": settings.crop_ratio, "batch_size": settings.batch_size}
    options["precision"] = encoder.config.matmul_precision
    inputs = EpochInputs(
        shared=jax.device_put(shared),
        cases=prepared.packed,
        classes=np.int32(len(prepared.classes)),
        splits=prepared.splits,
        seed=np.asarray(seeds),
        hyperparams=hyperparams(settings),
        epoch=np.int32(0),
    )
    for epoch in range(settings.epochs if stop is None else stop):
        members, report = run_epoch(members, inputs._replace(epoch=np.int32(epoch)), **options)
        report = jax.device_get(report)
        if progress:
            progress(epoch + 1, report)
        if report.stopped.all():
            break
    return _Trained(members, report, epoch + 1)


def _choose_rates(report: EpochReport, *, validated: bool) -> list[int]:
    """Return per member the index of the learning rate with the best validation; without validation there is one rate."""
    tables = zip(report.best.accuracy, report.best.loss, strict=True)
    chosen = [int(np.lexsort((losses, -accuracies))[0]) if validated else 0 for accuracies, losses in tables]
    if 0 in _pick(report.best_epoch, chosen, int) or not (validated or np.isfinite(_pick(report.loss, chosen, float)).all()):
        raise DivergenceError("The loss was not finite in any epoch; choose lower learning rates.")
    return chosen


def _pick(table: np.ndarray, chosen: list[int], kind: type) -> tuple:
    return tuple(kind(row[i]) for row, i in zip(table, chosen, strict=True))


def _best_arrays(members: Member, chosen: list[int], *, classes: int) -> Flat:
    """Return the arrays of each member's best epoch and rate, on the host, without padding of the head."""
    best = jax.device_get(members.best)
    arrays = {name: leaf[np.arange(len(chosen)), chosen] for name, leaf in {**best.weights, **best.statistics}.items()}
    return {name: leaf[..., :classes] if name.startswith("params/head/") else leaf for name, leaf in arrays.items()}
