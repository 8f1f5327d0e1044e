"""In which order the classes are drawn so that their shares hold all along, and not only at the end."""

from __future__ import annotations

import heapq
import math

import numpy as np

_ROUNDING = 1e-6  # of times k / share, which a float may put on the wrong side of a whole number


def even_class_order(shares: np.ndarray, length: int, seed: int) -> np.ndarray:
    """Returns the class of each of the first draws, int64 (length,): after T of them class c has had share_c · T.

    Off by less than one row, for every class and every T. Draw k of a class may come from time floor(k / share) on and
    must have come before ceil((k + 1) / share); of those that may come the most urgent is taken, which meets all of
    these bounds where the shares sum to 1 (Baruah et al. 1996, "Proportionate progress"). Ties are broken at random. A
    shorter order is the beginning of a longer one.

    Args:
        shares: (C,), > 0, sum 1.
        length: number of draws.
        seed: of the ties.
    """
    ties = np.random.default_rng(seed).random(length + len(shares)).tolist()
    drawn = [0] * len(shares)
    may_come: list[tuple[int, float, int]] = []  # (before when, tie, class)
    waiting = [(0, ties[c], c) for c in range(len(shares))]  # (from when on, tie, class)
    order = np.empty(length, dtype=np.int64)
    for now in range(length):
        while waiting and waiting[0][0] <= now:
            _, tie, c = heapq.heappop(waiting)
            heapq.heappush(may_come, (math.ceil((drawn[c] + 1) / shares[c] - _ROUNDING), tie, c))
        _, _, c = heapq.heappop(may_come)
        order[now] = c
        drawn[c] += 1
        heapq.heappush(waiting, (math.floor(drawn[c] / shares[c] + _ROUNDING), ties[len(shares) + now], c))
    return order
