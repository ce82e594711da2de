"""A fine-tuned encoder with its head: it labels series, and is kept in a bundle (`bundle`), without pickle."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nutime_jax.bundle import load_bundle, save_bundle
from nutime_jax.config import PretrainConfig, TuningSettings, from_dict, to_dict
from nutime_jax.data.inputs import clean_cases
from nutime_jax.errors import InputError
from nutime_jax.finetuning.channels import ChannelMap
from nutime_jax.finetuning.ensemble import Network, predict_cases
from nutime_jax.finetuning.packed import LEAST_CASES, LEAST_CLASSES, LEAST_POINTS, pack_cases, round_up
from nutime_jax.models.heads import Classifier
from nutime_jax.models.network import build_encoder

KIND, SCHEMA = "classifier", 1
BATCH = 64


@dataclass(frozen=True)
class Training:
    """How training went; a number a member where there is a tuple.

    selection: "train", or "test" if the test split chose epoch and rate (the published protocol).
    accuracies, losses: of the kept epoch on the validating cases; empty where no class had a case to spare. Under
        settings.refit they are those by which rate and epoch were chosen, before all cases were trained on.
    """

    selection: str
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    best_epochs: tuple[int, ...]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    epochs: int
    train_cases: int
    validation_cases: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Mean validation accuracy of the members; NaN where nobody validated."""
        return float(np.mean(self.accuracies)) if self.accuracies else float("nan")


@dataclass(frozen=True)
class FineTunedClassifier:
    """Labels series of any length and scale.

    config: the encoder's; see `encoder.Encoder`.
    classes_: labels as text, sorted; columns of `predict_proba` are in this order.
    channels: what is done to the channels of a case.
    members: arrays of each network in the ensemble, members first. shared: those that all have in common.
    """

    config: PretrainConfig
    settings: TuningSettings
    classes_: np.ndarray
    channels: ChannelMap
    members: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]
    training: Training

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each case; see `predict_proba`."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, float32 (cases, classes), averaged over the members.

        A series is resized as a whole, however long, as in training.

        Args:
            X: series in any form of `data.inputs.read_series`.

        Raises:
            InputError: see `read_series`; or X has other channels than those fitted on.
        """
        cases = [self.channels.apply(case, name=f"case {i}") for i, case in enumerate(clean_cases(X))]
        network, members = self.network, self._padded_members()
        parts = []
        for chunk in _chunks(cases):
            packed = pack_cases(chunk, np.zeros(len(chunk), np.int32))
            options = {
                "network": network,
                "size": self.config.length,
                "batch_size": BATCH,
                "num_window_offsets": self.settings.num_window_offsets,
            }
            probabilities = predict_cases(members, self.shared, packed, len(chunk), len(self.classes_), **options)
            parts.append(np.asarray(probabilities)[: len(chunk), : len(self.classes_)])
        return np.concatenate(parts)

    def alone(self, member: int) -> "FineTunedClassifier":
        """One member of the ensemble."""
        return dataclasses.replace(self, members={name: leaf[member : member + 1] for name, leaf in self.members.items()})

    def accuracy(self, X: Sequence[np.ndarray], labels: np.ndarray) -> float:
        """Share of cases that are labelled rightly."""
        return float(np.mean(self.predict(X) == np.asarray(labels, str)))

    @property
    def network(self) -> Classifier:
        """The Flax module, with as many outputs as its programs have."""
        return build_classifier(self.config, self.settings, classes=len(self.classes_))

    def _padded_members(self) -> Network:
        """Arrays as `predict_cases` takes them: outputs that are no class are zero, and masked there."""
        blank = self.network.classes - len(self.classes_)
        arrays = {
            name: np.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, blank)]) if name.startswith("params/head/") else leaf
            for name, leaf in self.members.items()
        }
        statistics = {name: leaf for name, leaf in arrays.items() if name.startswith("batch_stats/")}
        return Network({name: leaf for name, leaf in arrays.items() if name not in statistics}, statistics)

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the classifier, beside its place, and moves it there once it is whole; an older one is replaced.

        Raises:
            InputError: the folder cannot be written, or holds something else.
        """
        about = {
            "encoder": to_dict(self.config, encoder=True),
            "settings": dataclasses.asdict(self.settings),
            "classes": self.classes_.tolist(),
            "channels": dataclasses.asdict(self.channels),
            "training": dataclasses.asdict(self.training),
        }
        arrays = {f"{kind}/{name}": leaf for kind in ("members", "shared") for name, leaf in getattr(self, kind).items()}
        return save_bundle(folder, about, arrays, kind=KIND, schema=SCHEMA)


def build_classifier(config: PretrainConfig, settings: TuningSettings, *, classes: int) -> Classifier:
    """The network of a set with so many classes: outputs are rounded up, so that sets share programs."""
    return Classifier(
        build_encoder(config.model),
        classes=round_up(classes, LEAST_CLASSES),
        norm=settings.head_norm,
        channels=settings.channels,
        pooling=settings.pooling,
        frozen=settings.strategy == "head",
    )


def load_classifier(folder: str | os.PathLike) -> FineTunedClassifier:
    """Loads what `FineTunedClassifier.save` wrote.

    Raises:
        InputError: the folder holds no classifier, or one of another schema, or a damaged one.
    """
    about, leaves, _ = load_bundle(folder, kind=KIND, schema=SCHEMA, writer="`nutime finetune`")
    arrays: dict[str, dict] = {"members": {}, "shared": {}}
    try:
        for name, leaf in leaves.items():
            kind, _, rest = name.partition("/")
            arrays[kind][rest] = leaf
        return FineTunedClassifier(
            config=from_dict(PretrainConfig, about["encoder"]),
            settings=TuningSettings(**about["settings"]),
            classes_=np.asarray(about["classes"]),
            channels=ChannelMap(**{name: _tuples(value) for name, value in about["channels"].items()}),
            training=Training(**{name: _tuples(value) for name, value in about["training"].items()}),
            **arrays,
        )
    except (KeyError, TypeError, AttributeError) as error:  # a bundle of something else
        raise InputError(f"{folder} is damaged: what it describes is no classifier ({error}); use another copy") from error


def _chunks(cases: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """Runs of cases that fit the smallest packing, so that all share one program; a larger case stands alone."""
    first, points = 0, 0
    for i, case in enumerate(cases):
        if i > first and (i - first == LEAST_CASES or points + case.size > LEAST_POINTS):
            yield cases[first:i]
            first, points = i, 0
        points += case.size
    yield cases[first:]


def _tuples(value):
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
