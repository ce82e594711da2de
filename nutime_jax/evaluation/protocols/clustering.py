"""Clustering of frozen features by k-means, scored by the labels."""

import warnings

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, rand_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from nutime_jax.errors import InputError
from nutime_jax.evaluation.features import FeatureSet

STARTS = 10


def clustering_metrics(cases: FeatureSet, *, starts: int = STARTS, seed: int = 0) -> dict[str, float]:
    """Cluster cases by k-means and compare the clusters with the classes.

    Features are standardised; the best of `starts` initialisations by the k-means objective counts. The number of clusters is
    the number of classes; labels are not used otherwise.

    Returns:
        "nmi" (normalised by the mean of the entropies), "ari", "ri", and "accuracy" under the best matching of clusters
        to classes.

    Raises:
        InputError: there are no cases.
    """
    if not len(cases.features):
        raise InputError("there are no cases to cluster; give one or more")
    clusters = find_clusters(cases.features, len(np.unique(cases.labels)), starts=starts, seed=seed)
    return {
        "nmi": float(normalized_mutual_info_score(cases.labels, clusters)),
        "ari": float(adjusted_rand_score(cases.labels, clusters)),
        "ri": float(rand_score(cases.labels, clusters)),
        "accuracy": matched_accuracy(cases.labels, clusters),
    }


def find_clusters(features: np.ndarray, clusters: int, *, starts: int = STARTS, seed: int = 0) -> np.ndarray:
    """Return the cluster of every case."""
    return fit_clusters(features, clusters, starts=starts, seed=seed)[-1].labels_


def fit_clusters(features: np.ndarray, clusters: int, *, starts: int = STARTS, seed: int = 0) -> Pipeline:
    """Return a pipeline of a scaler and the best k-means of `starts`."""
    pipeline = make_pipeline(StandardScaler(), KMeans(clusters, n_init=starts, random_state=seed))
    # Synchronising threads costs more than it saves on small datasets: on a busy machine 40 times the time.
    with threadpool_limits(1), warnings.catch_warnings():
        # Identical cases have fewer clusters than classes, which lowers the scores.
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        return pipeline.fit(np.asarray(features, np.float64))


def matched_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Return the fraction of cases in the cluster of their class, under the best one-to-one matching."""
    table = contingency_matrix(labels, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))
