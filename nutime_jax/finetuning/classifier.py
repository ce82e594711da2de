"""Fine-tuned classifiers: encoder and head."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nutime_jax.config import PretrainConfig, TuningSettings, to_dict
from nutime_jax.data.inputs import clean_cases
from nutime_jax.distributed.backend import use_backend
from nutime_jax.encoder import normalise_case
from nutime_jax.finetuning.base import Contents, SeriesClassifier
from nutime_jax.finetuning.channels import ChannelMap
from nutime_jax.finetuning.ensemble import Network, predict_cases
from nutime_jax.finetuning.packed import LEAST_CASES, LEAST_CLASSES, LEAST_POINTS, pack_cases, round_up
from nutime_jax.models.heads import Classifier
from nutime_jax.models.network import build_encoder

BATCH = 64


@dataclass(frozen=True)
class TrainingRecord:
    """Record of a training. Tuples have one value per ensemble member.

    selection: "train", or "test" if the test split chose epoch and learning rate (the published protocol).
    accuracies, losses: of the selected epoch on the validation cases; empty without validation cases. With settings.refit,
        those of the selection, before the training on all cases.
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
        """Mean validation accuracy of the members; NaN without validation cases."""
        return float(np.mean(self.accuracies)) if self.accuracies else float("nan")


@dataclass(frozen=True)
class FineTunedClassifier(SeriesClassifier):
    """`SeriesClassifier` of fine-tuned networks, for series of any length and scale.

    config: configuration of the encoder; see `encoder.Encoder`.
    classes_: labels as text, sorted, in the order of the columns of `predict_proba`.
    channels: reduction of the channels of a case.
    members: arrays of the ensemble members, with a leading axis (members,). shared: arrays that all members share.
    """

    config: PretrainConfig
    settings: TuningSettings
    classes_: np.ndarray
    channels: ChannelMap
    members: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]
    training: TrainingRecord

    @use_backend()
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float32 (cases, classes), averaged over the members.

        Series of any length are resized, as in training.

        Args:
            X: series in any form of `data.inputs.read_series`.

        Raises:
            InputError: see `read_series`; or X has another number of channels than the training cases.
        """
        cases = [normalise_case(case, self.config.evaluation) for case in clean_cases(X)]
        cases = [self.channels.apply(case, name=f"case {i}") for i, case in enumerate(cases)]
        network, members = self.network, self._padded_members()
        parts = []
        for chunk in _split_chunks(cases):
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

    def single(self, member: int) -> "FineTunedClassifier":
        """Return a classifier with one member of the ensemble."""
        return dataclasses.replace(self, members={name: leaf[member : member + 1] for name, leaf in self.members.items()})

    @property
    def network(self) -> Classifier:
        """Flax module, with outputs padded as in its compiled functions."""
        return build_classifier(self.config, self.settings, classes=len(self.classes_))

    def _padded_members(self) -> Network:
        """Return the arrays for `predict_cases`, with zeros for outputs that are not classes."""
        blank = self.network.classes - len(self.classes_)
        arrays = {
            name: np.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, blank)]) if name.startswith("params/head/") else leaf
            for name, leaf in self.members.items()
        }
        statistics = {name: leaf for name, leaf in arrays.items() if name.startswith("batch_stats/")}
        return Network({name: leaf for name, leaf in arrays.items() if name not in statistics}, statistics)

    def contents(self) -> Contents:
        """Return configuration, settings, classes and channels, and the arrays of all members."""
        about = {
            "encoder": to_dict(self.config, encoder=True),
            "settings": dataclasses.asdict(self.settings),
            "classes": self.classes_.tolist(),
            "channels": dataclasses.asdict(self.channels),
            "training": dataclasses.asdict(self.training),
        }
        arrays = {f"{kind}/{name}": leaf for kind in ("members", "shared") for name, leaf in getattr(self, kind).items()}
        return Contents(about, arrays)


def build_classifier(config: PretrainConfig, settings: TuningSettings, *, classes: int) -> Classifier:
    """Return the network for a number of classes, rounded up so that datasets share compiled functions."""
    return Classifier(
        build_encoder(config.model),
        classes=round_up(classes, LEAST_CLASSES),
        norm=settings.head_norm,
        channels=settings.channels,
        pooling=settings.pooling,
        frozen=settings.strategy == "head",
    )


def _split_chunks(cases: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """Yield runs of cases that fit the minimum capacities, so that all share a compiled function; a larger case is alone."""
    first, points = 0, 0
    for i, case in enumerate(cases):
        if i > first and (i - first == LEAST_CASES or points + case.size > LEAST_POINTS):
            yield cases[first:i]
            first, points = i, 0
        points += case.size
    yield cases[first:]
