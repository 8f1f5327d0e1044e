"""FER+ vote maths: ten annotators' votes → one label or a distribution (Barsoum et al., arXiv:1608.01041)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synfer.faces.expressions import LABEL_SPACES, canonical_expression

VOTE_COLUMNS = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)
"""Columns of ``fer2013new.csv`` after "Usage" and "Image name": eight expressions, "unknown", "NF" (not a face)."""

FERPLUS_SPACE = LABEL_SPACES["ferplus8"]

_ORDER = [[canonical_expression(name) for name in VOTE_COLUMNS[:8]].index(name) for name in FERPLUS_SPACE]


@dataclass(frozen=True)
class FERPlusLabels:
    """What the votes of N rows say.

    Attributes:
        label: int64 (N,), index of the top expression in the ``ferplus8`` space; the first of them where tied.
        distribution: float32 (N, 8) in the ``ferplus8`` order, rows sum to 1 (0 where no vote for an expression is
            left).
        rejected: bool (N,), "unknown" or "not a face" has the top vote (alone or tied), or no vote is left.
        tied: bool (N,), two or more expressions share the top vote (False where rejected).
    """

    label: np.ndarray
    distribution: np.ndarray
    rejected: np.ndarray
    tied: np.ndarray


def drop_single_votes(votes: np.ndarray) -> np.ndarray:
    """Returns the votes with every count of 1 set to 0: a single annotator is treated as an outlier.

    Args:
        votes: int (N, 10).
    """
    return np.where(votes == 1, 0, votes)


def count_votes(votes: np.ndarray) -> FERPlusLabels:
    """Counts FER+ votes.

    Args:
        votes: non-negative int (N, 10) in the order of ``VOTE_COLUMNS``.

    Raises:
        ValueError: another shape.
    """
    if votes.ndim != 2 or votes.shape[1] != len(VOTE_COLUMNS):
        raise ValueError(f"FER+ votes: found shape {votes.shape}, expected (N, {len(VOTE_COLUMNS)})")
    kept = drop_single_votes(votes.astype(np.int64))
    expression = kept[:, _ORDER]
    top = expression.max(axis=1, initial=0)
    rejected = (kept[:, 8:].max(axis=1, initial=0) >= top) | (top == 0)
    tied = ~rejected & ((expression == top[:, None]).sum(axis=1) > 1)
    total = expression.sum(axis=1, keepdims=True)
    distribution = expression / np.maximum(total, 1)
    return FERPlusLabels(expression.argmax(axis=1), distribution.astype(np.float32), rejected, tied)
