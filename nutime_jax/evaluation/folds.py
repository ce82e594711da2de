"""Stratified folds that any labels allow, classes of a single case too."""

import numpy as np
from jaxtyping import Int


def deal_folds(codes: Int[np.ndarray, " cases"], *, folds: int, seed: int = 0) -> Int[np.ndarray, " cases"]:
    """The fold of every case, 0 to folds - 1: each class is shuffled and dealt round, going on where the last one ended.

    The one case of a class is in one fold only; whoever trains on the others does not know that class.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    dealt = np.empty(len(codes), np.int64)
    dealt[order] = np.arange(len(codes)) % folds
    return dealt
