"""Classifiers of raw series, on the same files as the encoders. Test cases choose nothing.

Series of unequal lengths are resized to the longest training length, as in encoders (`encoder.resize_series`). This removes
tempo and length: compared with zero padding at the end, MiniRocket loses 4.6 percentage points on AllGestureWiimoteX and 2.6 on
PLAID, and gains 4.4 on GesturePebbleZ2.
"""

import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from nutime_jax.data.datasets import Cases
from nutime_jax.errors import InputError, extra, missing_extra
from nutime_jax.evaluation.features import raw_features
from nutime_jax.evaluation.results import class_metrics

WINDOW = 0.1
"""Width of the Sakoe-Chiba band of DTW, as a fraction of the length; not tuned."""

TREES = 200

MIN_LENGTHS = {"minirocket": 9, "multirocket_hydra": 10}
"""Minimum length of a method's kernels, in time points; shorter datasets are resized to it."""


def baseline_predictions(name: str, train: Cases, test: Cases, *, seed: int) -> np.ndarray:
    """Fit a baseline on the training cases and return the labels that it predicts for the test cases.

    Args:
        name: one of BASELINES.
        seed: of the forest and the random kernels; nearest neighbours have no randomness.

    Raises:
        InputError: the name is unknown, a package is missing, or the cases have fewer than two classes or unequal channels.
    """
    if name not in BASELINES:
        raise InputError(f"baseline {name!r} is unknown; choose one of {', '.join(BASELINES)}")
    _check(train, test)
    length = max(MIN_LENGTHS.get(name, 1), *(case.shape[-1] for case in train.series))
    return BASELINES[name](_array(train, length), train.labels, _array(test, length), seed)


def baseline_metrics(name: str, train: Cases, test: Cases, *, seed: int) -> dict[str, float]:
    """Return `results.class_metrics` of `baseline_predictions`."""
    return class_metrics(test.labels, baseline_predictions(name, train, test, seed=seed))


def _check(train: Cases, test: Cases) -> None:
    for split, cases in (("training", train), ("test", test)):
        if cases.labels is None or not len(cases.series):
            raise InputError(f"the {split} split has no labelled cases; a baseline needs them")
    if len(set(train.labels)) < 2:
        raise InputError(f"every training case is of class {train.labels[0]}; a classifier needs two classes")
    channels = {len(case) for cases in (train, test) for case in cases.series}
    if len(channels) > 1:
        raise InputError(f"cases have {sorted(channels)} channels; every case needs the same number")


def _array(cases: Cases, length: int) -> np.ndarray:
    """Shape (cases, channels, length)."""
    return raw_features(cases, length=length).features.reshape(len(cases.series), -1, length)


def _raw_1nn(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return KNeighborsClassifier(1).fit(_flat(x), y).predict(_flat(test))


def _raw_1nn_dtw(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Dependent DTW over all channels; ties go to the first training case. Cost: test × train × length² × WINDOW steps."""
    with extra("aeon"):
        from aeon.distances import dtw_pairwise_distance
    from numba.core.errors import NumbaTypeSafetyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaTypeSafetyWarning)  # from aeon's loop counters, at compilation
        distances = dtw_pairwise_distance(test.astype(np.float64), x.astype(np.float64), window=WINDOW)
    return y[distances.argmin(1)]


def _raw_forest(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return RandomForestClassifier(TREES, random_state=seed).fit(_flat(x), y).predict(_flat(test))


def _minirocket(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """10,000 features and a ridge classifier; leave-one-out within the training cases selects the penalty."""
    with extra("aeon"):
        from aeon.classification.convolution_based import MiniRocketClassifier

    return MiniRocketClassifier(random_state=seed).fit(x, y).predict(test)


def _multirocket_hydra(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    _require("torch", "torch")
    with extra("aeon"):
        from aeon.classification.convolution_based import MultiRocketHydraClassifier

    return MultiRocketHydraClassifier(random_state=seed).fit(x, y).predict(test)


def _deep(name: str, x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """A network of aeon with its published settings: 2,000 epochs (FCN) or 1,500, minutes to hours without a GPU."""
    _require("tensorflow", "deep")
    with extra("aeon"):
        from aeon.classification import deep_learning

    with tempfile.TemporaryDirectory() as folder:  # of the epoch with the smallest training loss
        network = getattr(deep_learning, name)(random_state=seed, file_path=f"{folder}/")
        return network.fit(x, y).predict(test)


def _require(module: str, name: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise missing_extra(module, name)


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "raw_1nn": _raw_1nn,
    "raw_1nn_dtw": _raw_1nn_dtw,
    "raw_forest": _raw_forest,
    "minirocket": _minirocket,
    "multirocket_hydra": _multirocket_hydra,
    "fcn": partial(_deep, "FCNClassifier"),
    "resnet": partial(_deep, "ResNetClassifier"),
    "inceptiontime": partial(_deep, "InceptionTimeClassifier"),
}
"""Name -> predicted labels, given training cases (cases, channels, time), their labels, test cases and a seed."""
