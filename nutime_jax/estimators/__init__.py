"""Estimators with the interface of scikit-learn; `estimators.aeon` has them under the base classes of aeon.

X is a table (cases, time), an array (cases, channels, time), a list of arrays (time,) or (channels, time) of any lengths, or a
pandas frame; NaN is a missing value, and any finite scale will do. Of every case the channels must be those of the fit, and of
a table, as everywhere in scikit-learn, the columns: series of other lengths come in any of the other forms. So kept, no check
of `sklearn.utils.estimator_checks` or `aeon.testing` has to be left out.

Programs are compiled once for a process, not once a fit: batches have one shape, and sets share those of fine-tuning. What is
fitted is NumPy arrays, pickles as such, and predicts the same in another process. An encoder that is named is loaded in every
fit; searches over many fits are quicker when they are given an `Encoder`. Sample weights are not offered.
"""

from nutime_jax.estimators.classifier import NuTimeClassifier
from nutime_jax.estimators.clusterer import NuTimeClusterer
from nutime_jax.estimators.detector import NuTimeAnomalyDetector
from nutime_jax.estimators.transformer import NuTimeTransformer

__all__ = ["NuTimeAnomalyDetector", "NuTimeClassifier", "NuTimeClusterer", "NuTimeTransformer"]
