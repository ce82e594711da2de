"""Classifiers of a frozen encoder and a probe."""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.special import softmax

from nutime_jax.config import PretrainConfig, from_dict, to_dict
from nutime_jax.data.inputs import clean_cases
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.finetuning.base import Contents, SeriesClassifier

PREFIX = "encoder/"
"""Prefix of the arrays of the encoder in a bundle."""
ARRAYS = ("mean", "scale", "weight", "bias")
"""Arrays of a probe in a bundle, also the names of its fields."""
CLIP = 2.0
"""Bound of standardised features in a Gaussian kernel: rare large values would decide all distances."""
MAX_CENTRES = 2000
"""Most centres of a Gaussian kernel: the solution takes their number to the third power."""


@dataclasses.dataclass(frozen=True)
class GaussianKernel:
    """Gaussian kernel exp(-d² / (2 width²)) of standardised features, clipped to -2 and 2; d is the Euclidean distance to a centre.

    centres: float32 (centres, features), clipped. width: root of the median squared distance between centres.
    """

    centres: np.ndarray
    width: float

    @classmethod
    def fit(cls, X: np.ndarray) -> "GaussianKernel":
        """Return the kernel with all cases as centres, or 2,000 random ones of more."""
        if len(X) > MAX_CENTRES:
            X = X[np.sort(np.random.default_rng(0).permutation(len(X))[:MAX_CENTRES])]
        centres = np.clip(X, -CLIP, CLIP).astype(np.float32)
        squared = _squared_distances(centres.astype(np.float64), centres)[np.triu_indices(len(X), 1)]
        width = float(np.sqrt(np.median(squared))) if len(squared) else 0.0
        return cls(centres, width or 1.0)  # 0 if half of the cases are equal

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the kernel of cases and centres, float64 (cases, centres)."""
        return np.exp(_squared_distances(np.clip(X, -CLIP, CLIP), self.centres) / (-2 * self.width**2))


def _squared_distances(X: np.ndarray, centres: np.ndarray) -> np.ndarray:
    centres = centres.astype(np.float64)
    products = (X**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * X @ centres.T
    return np.maximum(products, 0.0)


@dataclasses.dataclass(frozen=True)
class ProbeClassifier(SeriesClassifier):
    """`SeriesClassifier` that maps frozen features to the logits of the classes.

    encoder: the encoder. options: layer, pooling and channels, as arguments of `Encoder.embed`.
    classes_: labels as text, sorted.
    num_channels: channels of a case.
    mean, scale: float64 (features,); features are standardised with them.
    kernel: map of the standardised features; None for a linear probe.
    weight, bias: float64 (features or centres, classes) and (classes,), of the logits.
    """

    encoder: Encoder
    options: dict[str, Any]
    classes_: np.ndarray
    num_channels: int
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    kernel: GaussianKernel | None = None

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (cases, classes).

        Raises:
            InputError: X has another number of channels than the training cases.
        """
        return softmax(self._logits(X), axis=1)

    def _logits(self, X: Any) -> np.ndarray:
        cases = clean_cases(X)
        if len(cases[0]) != self.num_channels:
            raise InputError(f"case 0 has {len(cases[0])} channels; the classifier was fitted on {self.num_channels}")
        features = (self.encoder.embed(cases, **self.options).astype(np.float64) - self.mean) / self.scale
        return (self.kernel(features) if self.kernel else features) @ self.weight + self.bias

    def contents(self) -> Contents:
        """Return the encoder with its configuration, and the arrays of the probe."""
        about = {
            "encoder": to_dict(self.encoder.config, encoder=True),
            "probe": {"options": self.options, "num_channels": self.num_channels},
            "kernel": None if self.kernel is None else {"width": self.kernel.width},
            "classes": self.classes_.tolist(),
        }
        arrays = flatten_dict(jax.tree.map(np.asarray, self.encoder.variables), sep="/")
        arrays = {f"{PREFIX}{name}": leaf for name, leaf in arrays.items()}
        arrays |= {name: getattr(self, name) for name in ARRAYS}
        if self.kernel:
            arrays["centres"] = self.kernel.centres
        return Contents(about, arrays)


def probe_from_bundle(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> ProbeClassifier:
    """Return the classifier of `ProbeClassifier.contents`."""
    variables = {name.removeprefix(PREFIX): leaf for name, leaf in arrays.items() if name.startswith(PREFIX)}
    classifier = ProbeClassifier(
        encoder=Encoder(from_dict(PretrainConfig, about["encoder"]), unflatten_dict(variables, sep="/")),
        classes_=np.asarray(about["classes"]),
        kernel=None if about["kernel"] is None else GaussianKernel(arrays["centres"], float(about["kernel"]["width"])),
        **{name: arrays[name] for name in ARRAYS},
        **about["probe"],
    )
    _check_shapes(classifier)
    return classifier


def _check_shapes(classifier: ProbeClassifier) -> None:
    """Raise ValueError unless the arrays of the probe belong together."""
    width, classes = classifier.mean.shape, len(classifier.classes_)
    rows = len(classifier.kernel.centres) if classifier.kernel else len(classifier.mean)
    shapes = {"mean": width, "scale": width, "weight": (rows, classes), "bias": (classes,)}
    for name, shape in shapes.items():
        if getattr(classifier, name).shape != shape:
            raise ValueError(f"{name} has shape {getattr(classifier, name).shape}, not {shape}")
    if not (classifier.scale > 0).all():
        raise ValueError("scale has values of 0 or less")
    if classifier.kernel and not (classifier.kernel.centres.shape == (rows, *width) and classifier.kernel.width > 0):
        raise ValueError(f"centres have shape {classifier.kernel.centres.shape}, not {(rows, *width)}, or their width is not positive")
