"""Classifiers of frozen features that choose their hyperparameters within the training cases, and stratified folds."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.utils.validation import check_is_fitted, validate_data

from nutime_jax.finetuning.probe import GaussianKernel

PENALTIES = tuple(np.logspace(-3, 3, 10).tolist())
KERNEL_PENALTIES = tuple(np.logspace(-6, -1, 11).tolist())
"""Larger ones are selected with few cases, and score lower."""
SHARPNESS = tuple(np.logspace(-1, 2, 16).tolist())
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 3
COUNTS = (1, 3, 5, 9)
METRICS = ("euclidean", "cosine")
MONITOR_COUNT = 20
"""Number of neighbours of `neighbour_accuracy`, as in DINO."""
BLOCK = 1024
"""Number of queries whose distances are in memory at a time."""


class LeaveOneOutRidge(ClassifierMixin, BaseEstimator):
    """scikit-learn's RidgeClassifierCV with its leave-one-out accuracy: one RidgeCV on targets of -1 and 1 gives both.

    The penalty has the smallest mean squared leave-one-out error; ties go to the smaller penalty. Probabilities are the softmax
    of the scores, multiplied by the factor of SHARPNESS with the smallest leave-one-out log loss.

    classes_: labels, sorted. penalty_: selected penalty. sharpness_: selected factor. train_accuracy_: leave-one-out accuracy at
    that penalty; slightly optimistic, since the penalty was selected on the same cases.
    """

    def __init__(self, penalties: tuple[float, ...] = PENALTIES):
        self.penalties = penalties

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LeaveOneOutRidge":
        """Select the penalty and fit all cases."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        self._fit_map(X, y)
        return self

    def _fit_map(self, X: np.ndarray, y: np.ndarray) -> None:
        """Fit classes, penalty, weights and sharpness."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        targets = np.where(codes[:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
        ridge = RidgeCV(list(self.penalties), scoring="neg_mean_squared_error", store_cv_results=True).fit(X, targets)
        held_out = ridge.cv_results_[..., list(self.penalties).index(ridge.alpha_)]
        self.penalty_, self.coef_, self.intercept_ = float(ridge.alpha_), ridge.coef_, ridge.intercept_
        self.train_accuracy_ = float(np.mean(held_out.argmax(1) == codes))
        losses = [-log_softmax(factor * held_out, axis=1)[np.arange(len(codes)), codes].mean() for factor in SHARPNESS]
        self.sharpness_ = SHARPNESS[int(np.argmin(losses))]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of every class, (cases, classes)."""
        return softmax(self.sharpness_ * self._scores(X), axis=1)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the score of every class, (cases, classes); for two classes that of the second, (cases,)."""
        scores = self._scores(X)
        return scores[:, 1] if len(self.classes_) == 2 else scores

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class with the largest score."""
        return self.classes_[self._scores(X).argmax(1)]

    def _scores(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return self._map(validate_data(self, X, dtype=np.float64, reset=False)) @ self.coef_.T + self.intercept_

    def _map(self, X: np.ndarray) -> np.ndarray:
        return X


class LeaveOneOutKernelRidge(LeaveOneOutRidge):
    """Ridge classifier with a Gaussian kernel of standardised features; see `GaussianKernel`.

    Up to 2,000 cases it is exact. With more, 2,000 of them are centres (the Nyström approximation).

    kernel_: fitted kernel. coef_: weights of the centres, (classes, centres). Others as in `LeaveOneOutRidge`.
    """

    def __init__(self, penalties: tuple[float, ...] = KERNEL_PENALTIES):
        super().__init__(penalties)

    def _fit_map(self, X: np.ndarray, y: np.ndarray) -> None:
        self.kernel_ = GaussianKernel.fit(X)
        gram = self.kernel_(self.kernel_.centres.astype(np.float64))
        values, vectors = np.linalg.eigh(gram)
        kept = values > 1e-10 * values[-1]
        root = vectors[:, kept] / np.sqrt(values[kept])
        super()._fit_map((gram if len(gram) == len(X) else self.kernel_(X)) @ root, y)
        self.coef_ = self.coef_ @ root.T

    def _map(self, X: np.ndarray) -> np.ndarray:
        return self.kernel_(X)


class CrossValidatedLogisticRegression(ClassifierMixin, BaseEstimator):
    """scikit-learn's LogisticRegressionCV on principal axes: the same objective, at a sixth of the CPU time for 2,560 features.

    C is the one of `strengths` with the best mean accuracy over stratified folds; ties go to the smaller C. If no fold has
    training cases of two classes and more, or all classes have one case, it is the middle one.

    classes_: labels, sorted. C_: selected strength. train_accuracy_: cross-validated accuracy at that strength, or NaN.
    """

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS, folds: int = FOLDS):
        self.strengths = strengths
        self.folds = folds

    def fit(self, X: np.ndarray, y: np.ndarray) -> "CrossValidatedLogisticRegression":
        """Select C and fit all cases."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.mean_ = X.mean(0)
        left, singular, self.axes_ = np.linalg.svd(X - self.mean_, full_matrices=False)
        rotated = left * singular
        self.C_, self.train_accuracy_ = self.strengths[len(self.strengths) // 2], float("nan")
        splits = _splits(codes, folds=min(self.folds, len(codes))) if counts.max() > 1 else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            if splits:
                self.C_, self.train_accuracy_ = self._choose(rotated, codes, splits)
            self.model_ = LogisticRegression(C=self.C_, max_iter=1000, tol=1e-5).fit(rotated, codes)
        return self

    def _choose(self, rotated: np.ndarray, codes: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
        """Return C and its cross-validated accuracy."""
        choices = {"Cs": list(self.strengths), "l1_ratios": (0.0,), "cv": splits, "scoring": "accuracy"}
        search = LogisticRegressionCV(**choices, max_iter=1000, tol=1e-3, use_legacy_attributes=False).fit(rotated, codes)
        scores = search.scores_.reshape(len(splits), -1)[:, list(self.strengths).index(search.C_)]
        return float(search.C_), float(np.average(scores, weights=[len(test) for _, test in splits]))

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the logit of every class, (cases, classes); for two classes that of the second, (cases,)."""
        return self.model_.decision_function(self._project(X))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of every class, (cases, classes)."""
        return self.model_.predict_proba(self._project(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable class."""
        return self.classes_[self.model_.predict(self._project(X))]

    def _project(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return (validate_data(self, X, dtype=np.float64, reset=False) - self.mean_) @ self.axes_.T


def _splits(codes: np.ndarray, *, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test indices of the folds whose training cases have two classes or more."""
    fold_of = stratified_folds(codes, folds=folds)
    splits = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(folds)]
    return [(train, test) for train, test in splits if len(np.unique(codes[train])) > 1]


def stratified_folds(codes: Int[np.ndarray, " cases"], *, folds: int, seed: int = 0) -> Int[np.ndarray, " cases"]:
    """Return the fold of every case, 0 to folds - 1: cases are shuffled within their class and assigned in turn.

    Classes of a single case are accepted: the case is in one fold, and training without that fold lacks the class.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold_of = np.empty(len(codes), np.int64)
    fold_of[order] = np.arange(len(codes)) % folds
    return fold_of


class LeaveOneOutNeighbours(ClassifierMixin, BaseEstimator):
    """Majority vote of the k nearest training cases; ties go to the class with the nearer votes.

    k is one of `counts` and the metric one of METRICS: the pair with the best leave-one-out accuracy. Ties go to the
    Euclidean metric, then to the smaller k.

    classes_: labels, sorted. count_, metric_: selected pair. train_accuracy_: its leave-one-out accuracy, or NaN for a single
    case; slightly optimistic, since the pair was selected on the same cases.
    """

    def __init__(self, counts: tuple[int, ...] = COUNTS):
        self.counts = counts

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LeaveOneOutNeighbours":
        """Select k and the metric."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, self.codes_ = np.unique(y, return_inverse=True)
        self.cases_ = X
        self.metric_, self.count_, self.train_accuracy_ = METRICS[0], 1, float("nan")
        if len(X) == 1:
            return self
        accuracies = {}
        for metric in METRICS:
            indices = nearest(X, X, count=min(max(self.counts), len(X) - 1), metric=metric, exclude_self=True)
            for count in self.counts:
                votes = vote(self.codes_[indices[:, :count]], len(self.classes_))
                accuracies[metric, count] = float(np.mean(votes == self.codes_))
        self.metric_, self.count_ = max(accuracies, key=accuracies.get)
        self.train_accuracy_ = accuracies[self.metric_, self.count_]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class with most votes."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        indices = nearest(X, self.cases_, count=min(self.count_, len(self.cases_)), metric=self.metric_)
        return self.classes_[vote(self.codes_[indices], len(self.classes_))]


def nearest(
    queries: Float[np.ndarray, "queries features"],
    cases: Float[np.ndarray, "cases features"],
    *,
    count: int,
    metric: str = "euclidean",
    exclude_self: bool = False,
) -> Int[np.ndarray, "queries {count}"]:
    """Return indices of the nearest cases, nearest first, equal ones in order; `exclude_self` skips a query's own index."""
    mean = cases.mean(0)
    if metric == "cosine":
        queries, cases = _normalise(queries), _normalise(cases)
    else:  # distances do not depend on the mean, but their rounding does
        queries, cases = queries - mean, cases - mean
    half = (cases**2).sum(1) / 2
    parts = []
    for begin in range(0, len(queries), BLOCK):
        block = queries[begin : begin + BLOCK]
        distances = half - block @ cases.T
        if exclude_self:
            distances[np.arange(len(block)), begin + np.arange(len(block))] = np.inf
        parts.append(_smallest(distances, count))
    return np.concatenate(parts)


def nearest_distances(
    queries: Float[np.ndarray, "queries features"], cases: Float[np.ndarray, "cases features"], *, count: int
) -> Float[np.ndarray, "queries {count}"]:
    """Return Euclidean distances to the nearest cases, nearest first, in the dtype of the cases."""
    mean = cases.mean(0)
    queries, cases = (queries - mean).astype(cases.dtype, copy=False), cases - mean
    squares = (cases**2).sum(1)
    parts = []
    for begin in range(0, len(queries), BLOCK):
        block = queries[begin : begin + BLOCK]
        distances = squares - 2 * (block @ cases.T) + (block**2).sum(1)[:, None]
        if count < len(cases):
            distances = np.partition(distances, count - 1, axis=1)[:, :count]
        parts.append(np.sqrt(np.maximum(np.sort(distances, axis=1), 0)))
    return np.concatenate(parts)


def neighbour_accuracy(
    X: Float[np.ndarray, "cases features"], labels: np.ndarray, *, temperature: float, count: int = MONITOR_COUNT
) -> float:
    """Return the leave-one-out accuracy of nearest neighbours by cosine, which vote with exp(similarity / temperature).

    The vote is that of Wu et al. (CVPR 2018, section 3.4) and DINO. Nothing is fitted.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    unit = _normalise(X.astype(np.float64))
    indices = nearest(unit, unit, count=min(count, len(unit) - 1), metric="cosine", exclude_self=True)
    similarities = np.stack([(unit * unit[column]).sum(1) for column in indices.T], axis=1)
    weights = np.exp((similarities - similarities[:, :1]) / temperature)  # relative to the nearest: no overflow
    return float(np.mean(vote(codes[indices], len(classes), weights=weights) == codes))


def vote(
    codes: Int[np.ndarray, "queries count"], classes: int, *, weights: Float[np.ndarray, "queries count"] | None = None
) -> Int[np.ndarray, " queries"]:
    """Return the class with most votes among neighbours, nearest first; without weights every neighbour has one vote."""
    count = codes.shape[1]
    votes = np.zeros((len(codes), classes))
    if weights is None:
        weights = 1 + (count - np.arange(count)) / (2 * count * count)  # the bonus of all votes is less than half a vote
    np.add.at(votes, (np.arange(len(codes))[:, None], codes), weights)
    return votes.argmax(1)


def _smallest(distances: np.ndarray, count: int) -> np.ndarray:
    if count < distances.shape[1]:
        indices = np.sort(np.argpartition(distances, count - 1)[:, :count])
    else:
        indices = np.broadcast_to(np.arange(count), (len(distances), count))
    order = np.argsort(np.take_along_axis(distances, indices, 1), kind="stable")
    return np.take_along_axis(indices, order, 1)


def _normalise(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
