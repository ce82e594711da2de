"""Estimators with the interface of scikit-learn; `estimators.aeon` has them under the base classes of aeon.

X is a table (cases, time), an array (cases, channels, time), a list of arrays (time,) or (channels, time) of any lengths, or
another form of `data.inputs.read_series`. NaN is a missing value; any finite scale is accepted. Every case needs the channels
of `fit`, and a table its columns, as scikit-learn requires: pass series of other lengths in another form. No check of
`sklearn.utils.estimator_checks` or `aeon.testing` is skipped.

Executables are compiled once per process, not once per fit: batches have one shape. Fitted attributes are NumPy arrays; they
can be pickled and predict the same in another process. A named encoder is loaded in every fit; pass an `Encoder` to searches
over many fits. Sample weights are not supported.
"""

from nutime_jax.estimators.classifier import NuTimeClassifier
from nutime_jax.estimators.clusterer import NuTimeClusterer
from nutime_jax.estimators.detector import NuTimeAnomalyDetector
from nutime_jax.estimators.transformer import NuTimeTransformer

__all__ = ["NuTimeAnomalyDetector", "NuTimeClassifier", "NuTimeClusterer", "NuTimeTransformer"]
