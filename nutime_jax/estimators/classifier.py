"""A classifier of series: a probe of frozen features, or an encoder and head that are fine-tuned."""

import os
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from threadpoolctl import threadpool_limits

from nutime_jax.config import TuningSettings
from nutime_jax.data.datasets import Cases
from nutime_jax.encoder import Encoder
from nutime_jax.estimators.base import SeriesEstimator
from nutime_jax.estimators.inputs import check_choice, check_share, draw_seed, open_encoder, read_labels
from nutime_jax.evaluation.protocols.probes import PROBES, make_probe

STRATEGIES = ("probe", "head", "full")


def _offers(method: str) -> Callable[["NuTimeClassifier"], bool]:
    """Whether what is fitted, or would be, has a method."""

    def check(self: "NuTimeClassifier") -> bool:
        if hasattr(self, "classifier_") or self.strategy in ("head", "full"):
            return method == "predict_proba"
        if hasattr(self, "probe_"):
            return hasattr(self.probe_[-1], method)
        return not isinstance(self.probe, str) or self.probe not in PROBES or hasattr(PROBES[self.probe](), method)

    return check


class NuTimeClassifier(ClassifierMixin, SeriesEstimator):
    """Classifies series of any length and scale, with any labels.

    Args:
        encoder: name of a shipped encoder, path of a workdir or checkpoint, or an `Encoder`.
        strategy: "probe" fits a simple classifier on frozen features; "head" trains a head on the CLS token of the frozen
            encoder, "full" trains both (see `evaluation.tuning`), on cases of which a share is set aside to choose epoch and rate.
        probe: see `evaluation.probes.make_probe`; what there is to choose, it chooses inside the cases that it is fitted on.
        layer, pooling, channels, batch_size: of the probe's features; see `NuTimeTransformer`.
        epochs: of "head" and "full", at most. patience: epochs without improvement after which a network stops, 0 is never.
        learning_rates: peak learning rates of "head" and "full", tried side by side.
        ensemble_size: networks of "head" and "full" whose probabilities are averaged.
        validation_fraction: share of every class that chooses epoch and rate of "head" and "full".
        random_state: of "head" and "full": fresh weights, what is set aside, order, crops, dropout. A probe draws nothing
            that depends on it.

    What else there is to choose about fine-tuning is at the defaults of `TuningSettings`. Sample weights are not offered;
    nor is `decision_function` by "head" and "full", and `predict_proba` by the probes "ridge" and "knn".

    classes_: labels, sorted, in the type that they were given in. probe_: the fitted pipeline of a probe, over numbers of
    classes. classifier_: the `FineTunedClassifier` of "head" and "full", over numbers of classes as text.
    """

    _last = "classes_"

    def __init__(
        self,
        encoder: str | os.PathLike | Encoder = "nutime-small",
        *,
        strategy: str = "probe",
        probe: str = "logistic",
        layer: int | None = None,
        pooling: str | None = None,
        channels: str = "concat",
        batch_size: int = 32,
        epochs: int = 60,
        patience: int = 20,
        learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3),
        ensemble_size: int = 1,
        validation_fraction: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.encoder = encoder
        self.strategy = strategy
        self.probe = probe
        self.layer = layer
        self.pooling = pooling
        self.channels = channels
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.learning_rates = learning_rates
        self.ensemble_size = ensemble_size
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fits on series and one label a case."""
        cases = self._begin(X)
        classes, codes = read_labels(y, len(cases))
        if self.strategy == "probe":
            self._open()
            features = self._embed(cases)
            with threadpool_limits(1):  # as where probes are evaluated
                self.probe_ = make_probe(self.probe).fit(features, codes)
        else:
            settings, seed = self._settings(), draw_seed(self.random_state)
            labels = np.char.zfill(codes.astype(str), len(str(len(classes))))  # as text, in the order of the numbers
            from nutime_jax.finetuning.loop import fine_tune  # needs the extra `train`

            self.classifier_ = fine_tune(open_encoder(self.encoder), Cases(cases, labels), settings=settings, seed=seed)
        self.classes_ = classes
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The label of each case."""
        cases = self._read(X)
        if hasattr(self, "classifier_"):
            return self.classes_[self.classifier_.predict_proba(cases).argmax(1)]
        return self.classes_[self.probe_.predict(self._embed(cases))]

    @available_if(_offers("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, (cases, classes)."""
        cases = self._read(X)
        return self.classifier_.predict_proba(cases) if hasattr(self, "classifier_") else self.probe_.predict_proba(self._embed(cases))

    @available_if(_offers("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """The probe's score of each class, (cases, classes); of two classes that of the second against the first, (cases,)."""
        cases = self._read(X)
        return self.probe_.decision_function(self._embed(cases))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("probe", self.probe, tuple(PROBES))
        if self.strategy != "probe":
            self._settings()

    def _settings(self) -> TuningSettings:
        check_share("validation_fraction", self.validation_fraction)
        names = ("strategy", "learning_rates", "epochs", "patience", "ensemble_size")
        return TuningSettings(validation_fraction=self.validation_fraction, **{name: getattr(self, name) for name in names})
