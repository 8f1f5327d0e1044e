"""How often each class is drawn where the rows of some classes are few: shares of the draws, as functions of counts.

Each takes the rows per class, (K,), and returns shares, float64 (K,), that sum to 1; a class without a row gets 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns E_n = (1 − β^n) / (1 − β): how many rows of a class say something new, where rows overlap.

    Cui et al. 2019, arXiv 1901.05555, proposition 1; 1 / (1 − β) is what endlessly many rows of a class can cover.

    Args:
        counts: rows per class, ≥ 0, (K,).
        beta: β in [0, 1): 0 = one, whatever the number of rows; towards 1 = the number of rows.

    Returns:
        float64 (K,); 0 of a class without a row.
    """
    # 1 − β^n by its logarithm: with β near 1 the difference of two numbers near 1 would lose its digits.
    covered = np.where(counts > 0, 1.0, 0.0) if beta == 0 else -np.expm1(counts * np.log(beta))
    return covered / (1 - beta)


def tempered_shares(counts: np.ndarray, balance: float) -> np.ndarray:
    """Returns shares ∝ n^(1 − b): b = 0 as the rows are, 1 each class equally often.

    Square-root sampling is b = 1/2 (Mahajan et al. 2018, arXiv 1805.00932), class-balanced sampling b = 1; Kang et al.
    2020, arXiv 1910.09217, equation 1 has q = 1 − b.
    """
    return _normalised(np.where(counts > 0, counts.astype(np.float64) ** (1 - balance), 0.0))


def effective_number_shares(counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns shares ∝ n / E_n: every row is drawn with the weight that its class would have in the loss.

    Cui et al. 2019, arXiv 1901.05555, their loss as a sampler. β = 0 draws the classes as they are, β towards 1 each
    equally often.
    """
    numbers = effective_number(counts, beta)
    return _normalised(np.where(counts > 0, counts / np.where(counts > 0, numbers, 1.0), 0.0))


def repeat_factor_shares(counts: np.ndarray, threshold: float | None) -> np.ndarray:
    """Returns shares ∝ f·r with the repeat factor r = max(1, sqrt(t / f)) of a class that is a share f of the rows.

    Gupta et al. 2019, arXiv 1908.03195: classes below the threshold are repeated, the others are as they
    are among themselves.

    Args:
        counts: rows per class, (K,).
        threshold: t in (0, 1]; None = 1 / (classes with rows), the share that each would have if all were even.
    """
    share = counts / counts.sum()
    limit = 1 / np.count_nonzero(counts) if threshold is None else threshold
    factor = np.maximum(1.0, np.sqrt(limit / np.where(counts > 0, share, 1.0)))
    return _normalised(share * factor)


CLASS_SHARES: dict[str, Callable[[np.ndarray, float, float | None], np.ndarray]] = {
    "none": lambda counts, beta, threshold: tempered_shares(counts, 0.0),
    "balanced": lambda counts, beta, threshold: tempered_shares(counts, 1.0),
    "square_root": lambda counts, beta, threshold: tempered_shares(counts, 0.5),
    "effective_number": lambda counts, beta, threshold: effective_number_shares(counts, beta),
    "repeat_factor": lambda counts, beta, threshold: repeat_factor_shares(counts, threshold),
}
"""Name of a sampler → shares of (rows per class, β, threshold)."""


def _normalised(weight: np.ndarray) -> np.ndarray:
    return weight / weight.sum()
