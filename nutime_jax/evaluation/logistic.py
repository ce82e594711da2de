"""Logistic regression whose penalty is chosen by folds, all folds and penalties at once."""

import numpy as np
from jaxtyping import Float
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from nutime_jax.evaluation.folds import deal_folds

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 3


class FoldedLogistic(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression, penalty |weights|² / 2C, the intercept free: scikit-learn's objective.

    C is the one of `strengths` that labels most training cases rightly from outside their fold; ties go to the smaller,
    and sets whose classes have one case each, which no fold can tell, take the middle one.

    classes_: labels, sorted. C_: the strength chosen. train_accuracy_: share of training cases labelled rightly from
    outside their fold, at that strength; NaN if every class has one case.
    """

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS, folds: int = FOLDS):
        self.strengths = strengths
        self.folds = folds

    def fit(self, X: np.ndarray, y: np.ndarray) -> "FoldedLogistic":
        """Chooses C and fits on all cases."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.mean_ = X.mean(0)
        left, singular, right = np.linalg.svd(X - self.mean_, full_matrices=False)
        rotated = left * singular
        if counts.max() < 2:
            self.C_, self.train_accuracy_ = self.strengths[len(self.strengths) // 2], float("nan")
        else:
            self.C_, self.train_accuracy_ = self._choose(rotated, codes)
        weights, bias = minimise(rotated, codes, np.ones((1, len(codes))), np.array([self.C_]), steps=1000, tolerance=1e-5)
        self.coef_, self.intercept_ = right.T @ weights[0], bias[0]
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """The logit of every class, (cases, classes); of two classes that of the second against the first, (cases,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The probability of every class, (cases, classes)."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The class of the largest score."""
        return self.classes_[self._logits(X).argmax(1)]

    def _logits(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return (validate_data(self, X, dtype=np.float64, reset=False) - self.mean_) @ self.coef_ + self.intercept_

    def _choose(self, rotated: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
        folds = deal_folds(codes, folds=min(self.folds, len(codes)))
        inside = np.repeat(folds != np.arange(folds.max() + 1)[:, None], len(self.strengths), axis=0)
        strengths = np.tile(self.strengths, folds.max() + 1)
        weights, bias = minimise(rotated.astype(np.float32), codes, inside, strengths, steps=100, tolerance=1e-3)
        right = (rotated @ weights + bias[:, None]).argmax(-1) == codes
        shares = np.where(inside, 0, right).reshape(-1, len(self.strengths), len(codes)).sum((0, 2)) / len(codes)
        best = int(shares.argmax())
        return self.strengths[best], float(shares[best])


def minimise(
    rotated: Float[np.ndarray, "cases rank"],
    codes: np.ndarray,
    inside: np.ndarray,
    strengths: np.ndarray,
    *,
    steps: int,
    tolerance: float,
) -> tuple[Float[np.ndarray, "problems rank classes"], Float[np.ndarray, "problems classes"]]:
    """Fits many problems on one set of cases: accelerated gradient steps, each direction scaled by its curvature's bound.

    In coordinates where the features are centred and orthogonal, the Hessian is at most half the squared length of a
    column times C, plus the penalty (Böhning 1992), whichever cases a problem leaves out: the scale of every direction is
    known beforehand, and products with one matrix serve all problems.

    Args:
        rotated: centred cases in their principal axes; their dtype is that of the work.
        codes: class of every case, 0 to K - 1.
        inside: shape (problems, cases), 1 for cases that a problem fits.
        strengths: C of every problem.
        steps: at most so many; it ends sooner once no step of a problem is above `tolerance` of its largest weight.
    """
    dtype, (cases, rank), classes = rotated.dtype, rotated.shape, int(codes.max()) + 1
    design = np.hstack([rotated, np.ones((cases, 1), dtype)])
    penalised = np.append(np.ones(rank, dtype), dtype.type(0))[:, None]
    C = strengths.astype(dtype)[:, None, None]
    bound = C * (design**2).sum(0)[:, None] / 2 + penalised
    weight = inside.astype(dtype)[:, :, None] * C
    targets = (codes[:, None] == np.arange(classes)).astype(dtype)
    now = ahead = np.zeros((len(C), rank + 1, classes), dtype)
    pace = np.ones_like(C)
    for _ in range(steps):
        scores = design @ ahead
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        scores -= targets
        scores *= weight
        new = ahead - (design.T @ scores + penalised * ahead) / bound
        moved = new - now
        # Where the momentum points uphill it starts anew (O'Donoghue and Candès 2015).
        uphill = ((ahead - new) * moved * bound).sum((1, 2), keepdims=True) > 0
        pace = np.where(uphill, 1, pace)
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        now, ahead = new, new + np.where(uphill, 0, (pace - 1) / faster).astype(dtype) * moved
        pace = faster
        if (np.abs(moved).max((1, 2)) <= tolerance * np.abs(new).max((1, 2))).all():
            break
    return now[:, :-1], now[:, -1]
