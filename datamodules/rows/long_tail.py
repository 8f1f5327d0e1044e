"""How many rows of each class an exponential long tail has."""

from __future__ import annotations

import numpy as np


def long_tailed_counts(available: np.ndarray, ratio: float, largest: int | None = None) -> np.ndarray:
    """Returns how many rows to take of each class: n_i = n_max · ratio^(−i / (K − 1)), rounded, at least 1.

    The exponential profile of Cao et al. 2019, arXiv 1906.07413, over the K classes with rows, i = 0 the one with most
    of them. A class that has fewer than the profile wants lowers the whole profile: n_max is the largest number for
    which every class has enough, so that the ratio holds.

    Args:
        available: rows per class, int64; a class without any is left out.
        ratio: of the largest class to the smallest, ≥ 1.
        largest: bound on n_max; None = none.

    Returns:
        int64, like ``available``.
    """
    order = np.argsort(-available, kind="stable")[: np.count_nonzero(available)]
    share = float(ratio) ** -(np.arange(len(order)) / max(1, len(order) - 1))
    most = int((available[order] / share + 1e-9).min())
    counts = np.zeros(len(available), dtype=np.int64)
    counts[order] = np.maximum(1, np.rint((most if largest is None else min(most, largest)) * share))
    return counts
