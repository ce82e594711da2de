"""Estimators with the interface of scikit-learn, which they keep to the letter; `estimators.aeon` has those of aeon."""

from nutime_jax.estimators.classifier import NuTimeClassifier
from nutime_jax.estimators.clusterer import NuTimeClusterer
from nutime_jax.estimators.detector import NuTimeAnomalyDetector
from nutime_jax.estimators.transformer import NuTimeTransformer

__all__ = ["NuTimeAnomalyDetector", "NuTimeClassifier", "NuTimeClusterer", "NuTimeTransformer"]
