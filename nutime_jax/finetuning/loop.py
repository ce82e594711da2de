"""Fine-tuning: an encoder and a head trained on labelled cases. Test cases choose nothing unless that is asked for by name.

How many programs a sweep compiles does not grow with its sets. An epoch is one program for each combination of
(cases rounded up to a power of two, at least 1024; points likewise, at least 2**20; classes likewise, at least 8; channels);
all sets of the archives with up to 1024 cases, 2**20 points, 8 classes and one channel share one. Prediction has one for each
(classes likewise, channels), since it goes through long splits in packs of the smallest size. Drawing fresh weights is a
third, of a few arrays, under the same key as prediction.
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
from nutime_jax.encoder import Encoder
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.finetuning.channels import ChannelMap, fit_channels
from nutime_jax.finetuning.classifier import FineTunedClassifier, Training, build_classifier
from nutime_jax.finetuning.ensemble import Flat, Folds, Member, Report, create_members, numbers_of, run_epoch, split_encoder
from nutime_jax.finetuning.packed import PackedCases, pack_cases
from nutime_jax.models.heads import Classifier
from nutime_jax.models.network import check_num_window_offsets

log = logging.getLogger(__name__)

DEFAULTS = TuningSettings()


class _Prepared(NamedTuple):
    """A set on the device: what is done to its channels, its classes, its cases, and who trains and who validates."""

    channels: ChannelMap
    classes: np.ndarray
    packed: PackedCases
    folds: Folds


def fine_tune(
    encoder: Encoder,
    train: Cases,
    *,
    settings: TuningSettings = DEFAULTS,
    seed: int = 0,
    test: Cases | None = None,
    only: Sequence[np.ndarray] | None = None,
    progress: Callable[[int, Report], None] | None = None,
) -> FineTunedClassifier:
    """Trains a classifier on labelled cases.

    Every member of the ensemble (seed, seed + 1, …) carves its own validating cases from each class, is trained with every
    rate, and keeps the epoch and the rate that validate best: by accuracy, then by loss. Classes of a single case are
    for training. If no class has a case to spare, all epochs are run with the middle one of the rates, and a warning says so.

    Args:
        train: the training split.
        seed: of fresh weights, folds, order, crops and dropout.
        test: the test split, for settings.selection "test" alone: it then chooses epoch and rate, and all
            of `train` is for training. The classifier's `training.selection` says "test".
        only: places of the cases that each member trains on, equally many for each; all epochs are then run, with the
            middle one of the rates. None carves validating cases, as above.
        progress: called after every epoch with its number, from 1, and what happened in it.

    Raises:
        InputError: no labels, one class, test cases under honest selection, or more window offsets than a window has points.
        DivergenceError: no member ever had a finite loss.
    """
    started = time.monotonic()
    _check(train, settings, test)
    seeds = tuple(range(seed, seed + settings.ensemble_size))
    prepared = _prepare(train, test, seeds, settings, only)
    validated = prepared.folds.valid_count > 0
    if not validated and only is None:
        rate = settings.learning_rates[len(settings.learning_rates) // 2]
        log.warning("no case can be spared for validation: all %d epochs are run, with rate %g", settings.epochs, rate)
    network = build_classifier(encoder.config, settings, classes=len(prepared.classes))
    check_num_window_offsets(settings.num_window_offsets, network.encoder)
    shared = split_encoder(network, encoder.variables)[1]
    long = settings.lengthened(int(prepared.folds.train_count))
    members, report, epochs = _train(encoder, network, prepared, seeds, long, progress)
    chosen = _choose_rates(report, validated=validated)
    training = Training(
        selection="train" if test is None else "test",
        seeds=seeds,
        learning_rates=tuple(settings.learning_rates[i] for i in chosen),
        best_epochs=_pick(report.best_epoch, chosen, int),
        accuracies=_pick(report.best.accuracy, chosen, float) if validated else (),
        losses=_pick(report.best.loss, chosen, float) if validated else (),
        epochs=epochs,
        train_cases=int(prepared.folds.train_count),
        validation_cases=int(prepared.folds.valid_count),
        seconds=0.0,
    )
    if settings.refit and validated and test is None:
        members, chosen, changes = _refit(encoder, network, prepared, seeds, long, report)
        training = dataclasses.replace(training, **changes)
    arrays = _best_arrays(members, chosen, classes=len(prepared.classes))
    training = dataclasses.replace(training, seconds=time.monotonic() - started)
    return FineTunedClassifier(encoder.config, settings, prepared.classes, prepared.channels, arrays, jax.device_get(shared), training)


def _refit(
    encoder: Encoder, network: Classifier, prepared: _Prepared, seeds: tuple[int, ...], settings: TuningSettings, report: Report
) -> tuple[Member, list[int], dict]:
    """Members trained on all cases, with the rate and up to the epoch that were best on average; and what that changes in `Training`."""
    best = int(np.lexsort((report.best.loss.mean(0), -report.best.accuracy.mean(0)))[0])
    epochs = max(1, round(float(report.best_epoch[:, best].mean())))
    every = np.arange(int(prepared.folds.train_count + prepared.folds.valid_count))
    folds = _folds([(every, every[:0])] * len(seeds), capacity=prepared.folds.train.shape[1])
    alone = dataclasses.replace(settings, learning_rates=(settings.learning_rates[best],))
    members, last, _ = _train(encoder, network, prepared._replace(folds=folds), seeds, alone, None, stop=epochs)
    changes = {"learning_rates": alone.learning_rates * len(seeds), "best_epochs": (epochs,) * len(seeds), "train_cases": len(every)}
    changes |= {
        name: tuple(map(float, getattr(report.best, kind)[:, best])) for name, kind in (("accuracies", "accuracy"), ("losses", "loss"))
    }
    return members, _choose_rates(last, validated=False), changes


def carve_validation(labels: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the cases that train and of those that validate, each sorted.

    Every class of two cases or more gives `share` of them, at least one and never all; how many does not depend on the seed.
    """
    rng = np.random.default_rng(seed)
    valid = []
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        wanted = max(1, round(share * len(places))) if share else 0
        valid.append(places[: min(wanted, len(places) - 1)])
    valid = np.sort(np.concatenate(valid))
    return np.setdiff1d(np.arange(len(labels)), valid), valid


def _check(train: Cases, settings: TuningSettings, test: Cases | None) -> None:
    if train.labels is None:
        raise InputError("the training split has no labels; fine-tuning needs them")
    if len(set(train.labels)) < 2:
        raise InputError(f"every training case is of class {str(train.labels[0])!r}; fine-tuning needs two classes or more")
    if settings.selection == "test" and test is None:
        raise InputError("selection 'test' validates on the test split; give a set that has one, or choose selection 'train'")
    if settings.selection == "train" and test is not None:
        raise InputError("selection 'train' sees no test case; leave the test split out, or choose selection 'test'")
    if test is not None and test.labels is None:
        raise InputError("the test split has no labels; selection 'test' needs them")


def _prepare(
    train: Cases, test: Cases | None, seeds: tuple[int, ...], settings: TuningSettings, only: Sequence[np.ndarray] | None
) -> _Prepared:
    """Places the training cases on the device, and behind them the test cases if these validate."""
    channels = fit_channels(train.series, limit=settings.max_channels, reduction=settings.reduction)
    classes, numbers = np.unique(np.asarray(train.labels, str), return_inverse=True)
    series, labels = [channels.apply(case, name="a case") for case in train.series], [numbers]
    if test is not None:
        series += [channels.apply(case, name=f"case {i} of the test split") for i, case in enumerate(test.series)]
        labels.append(_numbers(np.asarray(test.labels, str), classes))
    packed = pack_cases(series, np.concatenate(labels))
    every = np.arange(len(series))
    if only is not None:
        pairs = [(np.sort(places), every[:0]) for places in only]
    elif test is not None:
        pairs = [np.split(every, [len(numbers)])] * len(seeds)
    else:
        pairs = [carve_validation(numbers, share=settings.validation_fraction, seed=seed) for seed in seeds]
    return _Prepared(channels, classes, packed, _folds(pairs, capacity=len(packed.labels)))


def _numbers(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Number of each label's class; -1 for one that training has not."""
    places = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return np.where(classes[places] == labels, places, -1)


def _folds(pairs: Sequence[Sequence[np.ndarray]], *, capacity: int) -> Folds:
    """Who trains and who validates, a pair a seed; their numbers do not depend on the seed."""
    train, valid = zip(*pairs, strict=True)

    def pad(rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(row, (0, capacity - len(row))) for row in rows]).astype(np.int32)

    return Folds(pad(train), np.int32(len(train[0])), pad(valid), np.int32(len(valid[0])))


def _train(
    encoder: Encoder,
    network: Classifier,
    prepared: _Prepared,
    seeds: tuple[int, ...],
    settings: TuningSettings,
    progress: Callable[[int, Report], None] | None,
    *,
    stop: int | None = None,
) -> tuple[Member, Report, int]:
    """Epochs until every member has stopped, and how many; of each, a few numbers come to the host.

    Args:
        stop: the last epoch, however many the settings plan for.
    """
    trained, shared = split_encoder(network, encoder.variables)
    options = {"network": network, "size": encoder.config.length}
    counts = {"channels": prepared.channels.channels, "learning_rates": len(settings.learning_rates)}
    members = create_members(trained, np.asarray(seeds), **counts, **options)
    options |= {"crop_ratio": settings.crop_ratio, "batch_size": settings.batch_size}
    options["precision"] = encoder.config.matmul_precision
    classes, numbers = np.int32(len(prepared.classes)), numbers_of(settings)
    arguments = (jax.device_put(shared), prepared.packed, classes, prepared.folds, np.asarray(seeds), numbers)
    for epoch in range(settings.epochs if stop is None else stop):
        members, report = run_epoch(members, *arguments, np.int32(epoch), **options)
        report = jax.device_get(report)
        if progress:
            progress(epoch + 1, report)
        if report.stopped.all():
            break
    return members, report, epoch + 1


def _choose_rates(report: Report, *, validated: bool) -> list[int]:
    """Of each member, the rate that validates best, the first of equals; the middle one where nobody validates."""
    if validated:
        tables = zip(report.best.accuracy, report.best.loss, strict=True)
        chosen = [int(np.lexsort((losses, -accuracies))[0]) for accuracies, losses in tables]
    else:
        chosen = [report.best.loss.shape[1] // 2] * len(report.best.loss)
    if 0 in _pick(report.best_epoch, chosen, int) or not (validated or np.isfinite(_pick(report.loss, chosen, float)).all()):
        raise DivergenceError("the loss was not finite in any epoch; choose lower learning rates")
    return chosen


def _pick(table: np.ndarray, chosen: list[int], kind: type) -> tuple:
    return tuple(kind(row[i]) for row, i in zip(table, chosen, strict=True))


def _best_arrays(members: Member, chosen: list[int], *, classes: int) -> Flat:
    """The best epoch of each member's chosen rate, on the host, without the outputs that are no class."""
    best = jax.device_get(members.best)
    arrays = {name: leaf[np.arange(len(chosen)), chosen] for name, leaf in {**best.weights, **best.statistics}.items()}
    return {name: leaf[..., :classes] if name.startswith("params/head/") else leaf for name, leaf in arrays.items()}
