"""Clustering of frozen features: k-means, which sees no label, scored by the labels."""

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
    """How far the clusters of the cases are their classes.

    k-means on standardised features, the best of `starts` starts by its own objective, with as many clusters as the cases
    have classes: of the labels nothing but their number is used before the scores.

    Returns:
        "nmi" (normalised by the mean of the entropies), "ari", "ri", and "accuracy" under the best matching of clusters
        and classes.

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
    """The cluster of every case."""
    return fit_clusters(features, clusters, starts=starts, seed=seed)[-1].labels_


def fit_clusters(features: np.ndarray, clusters: int, *, starts: int = STARTS, seed: int = 0) -> Pipeline:
    """A scaler and the best k-means of `starts`, which tell the cluster of further cases."""
    pipeline = make_pipeline(StandardScaler(), KMeans(clusters, n_init=starts, random_state=seed))
    # Threads that wait for each other cost more than these sets give them to do: on a busy machine 40 times the time.
    with threadpool_limits(1), warnings.catch_warnings():
        # Cases that are all alike have fewer clusters than classes; the scores say so.
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        return pipeline.fit(np.asarray(features, np.float64))


def matched_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Share of cases whose cluster is matched with their class, one class a cluster, as well as can be."""
    table = contingency_matrix(labels, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))
