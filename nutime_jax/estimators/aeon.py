"""The estimators under the base classes of aeon, for its pipelines and benchmarks, generated from those of scikit-learn."""

import abc
import inspect
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator

from nutime_jax.errors import extra
from nutime_jax.estimators.classifier import NuTimeClassifier
from nutime_jax.estimators.clusterer import NuTimeClusterer
from nutime_jax.estimators.detector import NuTimeAnomalyDetector
from nutime_jax.estimators.transformer import NuTimeTransformer

with extra("aeon"):
    from aeon.anomaly_detection.collection.base import BaseCollectionAnomalyDetector
    from aeon.classification import BaseClassifier
    from aeon.clustering import BaseClusterer
    from aeon.transformations.collection import BaseCollectionTransformer

TAGS = {
    "X_inner_type": ["np-list", "numpy3D"],
    "algorithm_type": "deeplearning",
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
}


def with_parameters_of(kind: type[BaseEstimator]) -> Any:
    """Return a decorator that gives a class the parameters and defaults of a scikit-learn estimator, and `_make_estimator`."""
    signature = inspect.signature(kind.__init__)

    def decorate(cls: type) -> type:
        def __init__(self, *args: Any, **parameters: Any):  # noqa: N807
            bound = signature.bind(self, *args, **parameters)
            bound.apply_defaults()
            for name, value in list(bound.arguments.items())[1:]:
                setattr(self, name, value)
            super(cls, self).__init__()

        __init__.__signature__ = signature
        cls.__init__ = __init__
        cls._make_estimator = lambda self: kind(**self.get_params(deep=False))
        cls.__doc__ += f" Parameters: see `{kind.__name__}`, which `estimator_` is."
        return abc.update_abstractmethods(cls)

    return decorate


@with_parameters_of(NuTimeTransformer)
class AeonNuTimeTransformer(BaseCollectionTransformer):
    """Features of a frozen encoder."""

    _tags: ClassVar = {**TAGS, "output_data_type": "Tabular", "removes_unequal_length": True, "removes_missing_values": True}

    def _fit(self, X: Any, y: Any = None) -> Self:
        self.estimator_ = self._make_estimator().fit(X)
        return self

    def _transform(self, X: Any, y: Any = None) -> np.ndarray:
        return self.estimator_.transform(X)


@with_parameters_of(NuTimeClassifier)
class AeonNuTimeClassifier(BaseClassifier):
    """A classifier of series; probes without probabilities return 1 for the class that they predict."""

    _tags: ClassVar = TAGS

    def _fit(self, X: Any, y: np.ndarray) -> Self:
        self.estimator_ = self._make_estimator().fit(X, y)
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return self.estimator_.predict(X)

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.estimator_.predict_proba(X) if hasattr(self.estimator_, "predict_proba") else super()._predict_proba(X)


@with_parameters_of(NuTimeClusterer)
class AeonNuTimeClusterer(BaseClusterer):
    """k-means on frozen features."""

    _tags: ClassVar = TAGS

    def _fit(self, X: Any, y: Any = None) -> Self:
        self.estimator_ = self._make_estimator().fit(X)
        self.labels_ = self.estimator_.labels_
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return self.estimator_.predict(X)

    def _predict_proba(self, X: Any) -> np.ndarray:
        return np.eye(self.n_clusters)[self._predict(X)]  # one column per cluster, also where a cluster has no case


@with_parameters_of(NuTimeAnomalyDetector)
class AeonNuTimeAnomalyDetector(BaseCollectionAnomalyDetector):
    """A detector of anomalous series: 1 is an anomaly, 0 a normal case. With labels, it is fitted on the normal cases."""

    _tags: ClassVar = {
        **TAGS,
        "anomaly_output_type": "binary",
        "fit_is_empty": False,
        "learning_type:unsupervised": True,
        "learning_type:semi_supervised": True,
    }

    def _fit(self, X: Any, y: np.ndarray | None = None) -> Self:
        normal = list(X) if y is None else [case for case, anomalous in zip(X, y, strict=True) if not anomalous]
        self.estimator_ = self._make_estimator().fit(normal)
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return (self.estimator_.predict(X) < 0).astype(np.int64)
