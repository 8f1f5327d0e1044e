"""Which of N rows are used where not all of them are: never the first, which in a sorted set are all of one class.

A choice is a function of the rows' ids, their classes and a seed, whatever their order and their number of ranks.
"""

from __future__ import annotations

import numpy as np

from synfer.foundation.counter_based_random import keyed_uniform, keys_of
from synfer.foundation.random_streams import Stream


def choose_share(label: np.ndarray, sample_id: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns row numbers, ascending: of each class that has rows the same share, at least one row.

    A smaller share is a subset of a larger one.

    Args:
        label: int64 (N,), class of each row.
        sample_id: str (N,), unique.
        fraction: share in (0, 1].
        seed: of the choice.
    """
    order = keyed_uniform(keys_of(sample_id.tolist()), 1, seed, Stream.SHARE_OF_ROWS)[:, 0]
    kept = []
    for name in np.unique(label):
        rows = np.flatnonzero(label == name)
        kept.append(rows[np.argsort(order[rows], kind="stable")[: max(1, round(fraction * len(rows)))]])
    return np.sort(np.concatenate(kept))


def choose_counts(label: np.ndarray, sample_id: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Returns row numbers, ascending: of each class so many rows, at random. Fewer of a class are a subset of more.

    Args:
        label: int64 (N,), class of each row.
        sample_id: str (N,), unique.
        counts: rows wanted of each class, (K,), no more than it has.
        seed: of the choice.
    """
    order = keyed_uniform(keys_of(sample_id.tolist()), 1, seed, Stream.LONG_TAIL_OF_ROWS)[:, 0]
    kept = []
    for name in np.unique(label):
        rows = np.flatnonzero(label == name)
        kept.append(rows[np.argsort(order[rows], kind="stable")[: counts[name]]])
    return np.sort(np.concatenate(kept))


def even_order(label: np.ndarray, sample_id: np.ndarray, seed: int) -> np.ndarray:
    """Returns all row numbers, int64 (N,), in an order whose every beginning holds the classes in their own shares.

    The first n are what the method of Sainte-Laguë gives each class of n seats; within a class rows follow at random.
    So the first n are a subset of the first n + 1, and two runs that use different numbers of rows compare like with
    like.

    Args:
        label: int64 (N,), class of each row.
        sample_id: str (N,), unique.
        seed: of the choice.
    """
    draw = keyed_uniform(keys_of(sample_id.tolist()), 1, seed, Stream.EVEN_ORDER_OF_ROWS)[:, 0]
    due = np.empty(len(label))
    for name in np.unique(label):
        rows = np.flatnonzero(label == name)
        due[rows[np.argsort(draw[rows], kind="stable")]] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.lexsort((draw, due))
