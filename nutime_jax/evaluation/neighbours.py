"""Nearest neighbours whose number and metric are chosen by leave-one-out."""

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

COUNTS = (1, 3, 5, 9)
METRICS = ("euclidean", "cosine")
BLOCK = 1024
"""Cases whose distances are held at once."""


class LeaveOneOutNeighbours(ClassifierMixin, BaseEstimator):
    """Majority of the k nearest training cases; of classes with as many votes, the one whose votes stand nearer.

    k is one of `counts` and the metric one of METRICS: the pair that labels most training cases rightly from the others.
    Ties go to the Euclidean metric, then to the smaller k.

    classes_: labels, sorted. count_, metric_: what was chosen. train_accuracy_: the share at that choice, slightly
    optimistic, since the choice was made on the same cases.
    """

    def __init__(self, counts: tuple[int, ...] = COUNTS):
        self.counts = counts

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LeaveOneOutNeighbours":
        """Chooses k and the metric."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, self.codes_ = np.unique(y, return_inverse=True)
        self.cases_ = X
        shares = {}
        most = min(max(self.counts), len(X) - 1)
        for metric in METRICS if most else ():
            ranks = nearest(X, X, count=most, metric=metric, alone=True)
            for count in self.counts:
                shares[metric, count] = float(np.mean(vote(self.codes_[ranks[:, :count]], len(self.classes_)) == self.codes_))
        (self.metric_, self.count_), self.train_accuracy_ = max(
            shares.items(), key=lambda item: item[1], default=(("euclidean", 1), float("nan"))
        )
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The class that the neighbours vote for."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        ranks = nearest(X, self.cases_, count=min(self.count_, len(self.cases_)), metric=self.metric_)
        return self.classes_[vote(self.codes_[ranks], len(self.classes_))]


def nearest(
    queries: Float[np.ndarray, "queries features"],
    cases: Float[np.ndarray, "cases features"],
    *,
    count: int,
    metric: str = "euclidean",
    alone: bool = False,
) -> Int[np.ndarray, "queries {count}"]:
    """Places of the nearest cases, nearest first, equal ones in their order; `alone` passes over a query's own place."""
    level = cases.mean(0)
    if metric == "cosine":
        queries, cases = _unit(queries), _unit(cases)
    else:  # distances do not depend on the level, their rounding does
        queries, cases = queries - level, cases - level
    half = (cases**2).sum(1) / 2
    parts = []
    for begin in range(0, len(queries), BLOCK):
        block = queries[begin : begin + BLOCK]
        distances = half - block @ cases.T
        if alone:
            distances[np.arange(len(block)), begin + np.arange(len(block))] = np.inf
        parts.append(_smallest(distances, count))
    return np.concatenate(parts)


def nearest_distances(
    queries: Float[np.ndarray, "queries features"], cases: Float[np.ndarray, "cases features"], *, count: int
) -> Float[np.ndarray, "queries {count}"]:
    """Euclidean distances to the nearest cases, nearest first, in the dtype of the cases."""
    level = cases.mean(0)
    queries, cases = (queries - level).astype(cases.dtype, copy=False), cases - level
    squares = (cases**2).sum(1)
    parts = []
    for begin in range(0, len(queries), BLOCK):
        block = queries[begin : begin + BLOCK]
        distances = squares - 2 * (block @ cases.T) + (block**2).sum(1)[:, None]
        if count < len(cases):
            distances = np.partition(distances, count - 1, axis=1)[:, :count]
        parts.append(np.sqrt(np.maximum(np.sort(distances, axis=1), 0)))
    return np.concatenate(parts)


def vote(codes: Int[np.ndarray, "queries count"], classes: int) -> Int[np.ndarray, " queries"]:
    """The class with most votes among neighbours, nearest first."""
    count = codes.shape[1]
    votes = np.zeros((len(codes), classes))
    nearness = 1 + (count - np.arange(count)) / (2 * count * count)  # all together less than half a vote more
    np.add.at(votes, (np.arange(len(codes))[:, None], codes), nearness)
    return votes.argmax(1)


def _smallest(distances: np.ndarray, count: int) -> np.ndarray:
    if count < distances.shape[1]:
        places = np.sort(np.argpartition(distances, count - 1)[:, :count])
    else:
        places = np.broadcast_to(np.arange(count), (len(distances), count))
    order = np.argsort(np.take_along_axis(distances, places, 1), kind="stable")
    return np.take_along_axis(places, order, 1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
