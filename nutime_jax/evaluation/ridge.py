"""Ridge classifier whose penalty is chosen by leave-one-out, all penalties and classes from one decomposition."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

PENALTIES = tuple(np.logspace(-3, 3, 10).tolist())


class Decomposition(NamedTuple):
    """Centred features (cases, features) as left singular vectors and squared singular values, those of zero left out.

    vectors: shape (cases, rank).
    squares: shape (rank,), descending.
    """

    vectors: Float64[np.ndarray, "cases rank"]
    squares: Float64[np.ndarray, " rank"]


class LeaveOneOutRidge(ClassifierMixin, BaseEstimator):
    """Least squares on targets of -1 and 1, a column a class, with an unpenalised intercept.

    The penalty is the one of `penalties` with the smallest mean square of leave-one-out errors, as that of scikit-learn's
    RidgeClassifierCV, whose predictions these are. Ties go to the smaller penalty.

    classes_: labels, sorted. penalty_: the penalty chosen. train_accuracy_: share of training cases that are labelled
    rightly by the fit without them, at that penalty; slightly optimistic, since the penalty was chosen on the same cases.
    """

    def __init__(self, penalties: tuple[float, ...] = PENALTIES):
        self.penalties = penalties

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LeaveOneOutRidge":
        """Chooses the penalty and fits on all cases."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, codes = np.unique(y, return_inverse=True)
        targets = np.where(codes[:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
        mean, level = X.mean(0), targets.mean(0)
        X = X - mean
        parts = decompose(X)
        errors = [leave_one_out_errors(parts, targets - level, penalty) for penalty in self.penalties]
        best = int(np.argmin([np.mean(error**2) for error in errors]))
        self.penalty_ = self.penalties[best]
        self.train_accuracy_ = float(np.mean((targets - errors[best]).argmax(1) == codes))
        dual = parts.vectors / (parts.squares + self.penalty_) @ (parts.vectors.T @ (targets - level))
        self.coef_ = X.T @ dual
        self.intercept_ = level - mean @ self.coef_
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """The score of every class, (cases, classes); of two classes that of the second, (cases,)."""
        scores = self._scores(X)
        return scores[:, 1] if len(self.classes_) == 2 else scores

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The class of the largest score."""
        return self.classes_[self._scores(X).argmax(1)]

    def _scores(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False) @ self.coef_ + self.intercept_


def decompose(X: Float64[np.ndarray, "cases features"]) -> Decomposition:
    """Decomposes centred features through the smaller of the two Gram matrices."""
    cases, features = check_array(X, ensure_min_features=0).shape
    wide = cases <= features
    squares, vectors = np.linalg.eigh(X @ X.T if wide else X.T @ X)
    kept = squares > squares[-1] * np.finfo(np.float64).eps * max(cases, features)
    squares, vectors = squares[kept][::-1], vectors[:, kept][:, ::-1]
    return Decomposition(vectors if wide else X @ vectors / np.sqrt(squares), squares)


def leave_one_out_errors(
    parts: Decomposition, targets: Float64[np.ndarray, "cases classes"], penalty: float
) -> Float64[np.ndarray, "cases classes"]:
    """Target of every case less what the fit to all others makes of it; targets are centred.

    A residual of the fit to all cases, over one less its leverage. Both are sums over the directions of the features, where
    the fit keeps a share, and over those that no feature reaches, where nothing is fitted: no difference of close numbers.
    """
    vectors, squares = parts
    left = penalty / (squares + penalty)
    products = vectors.T @ targets
    residuals, slack = vectors @ (left[:, None] * products), vectors**2 @ left
    if len(squares) < len(vectors) - 1:
        residuals = residuals + targets - vectors @ products
        slack = slack + np.maximum(1 - 1 / len(vectors) - (vectors**2).sum(1), 0)
    # A case that alone spans a direction no penalty reaches has no slack, and no error either.
    return residuals / np.maximum(slack, np.finfo(np.float64).tiny)[:, None]
