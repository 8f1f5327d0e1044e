"""Plans that make each expression in a share of its own (:mod:`synfer.synthesis.class_shares`)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence

import numpy as np

from synfer.faces.action_units import ACTION_UNITS
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.random_streams import Stream
from synfer.synthesis.plan import EndlessPlan, EvenPlan
from synfer.synthesis.request import SynthesisSettings

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: of all steps around a circle the one whose points stay most evenly spread."""


class ProportionalPlan(EvenPlan):
    """``count`` faces whose every beginning holds the expressions in their shares: a set that can be made longer.

    Place i has the expression that is due next: the k-th face of one with share s is due at (k − 1/2) / s. So the first
    n places are what the method of Sainte-Laguë gives each expression of n seats. Equal shares give an
    :class:`EvenPlan`.

    Args:
        count: number of faces.
        shares: share of each expression, ≥ 0, with the sum 1.
        seed: of the whole list.
        settings: how to make them; None = the synthesiser's own.
        au_names: names of the action units.
        done: sample ids that exist already and are left out.
    """

    def __init__(
        self,
        count: int,
        shares: Mapping[str, float],
        seed: int,
        settings: SynthesisSettings | None = None,
        au_names: Sequence[str] = ACTION_UNITS,
        done: np.ndarray | None = None,
    ) -> None:
        super().__init__(count, list(shares), seed, settings, au_names, done)
        self._order = _due_order(count, np.array(list(shares.values())))

    def names(self, ids: Sequence[int]) -> list[str]:
        """Returns the expressions of the faces with these sample ids."""
        return [self.expressions[self._order[i]] for i in ids]


class EndlessProportionalPlan(EndlessPlan):
    """Faces for the pool of one rank, without end, each expression in its share.

    Number i has the expression in whose part of [0, 1) the point (offset + i / golden ratio) mod 1 lies. Points of this
    sequence are spread so evenly that any stretch of numbers holds the shares to a few faces, and each is found without
    those before it.

    Args:
        shares: share of each expression, ≥ 0, with the sum 1.
        seed: of the run.
        rank: whose pool it is; it decides the offset.
        settings: how to make them; None = the synthesiser's own.
        au_names: names of the action units.
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        seed: int,
        rank: int = 0,
        settings: SynthesisSettings | None = None,
        au_names: Sequence[str] = ACTION_UNITS,
    ) -> None:
        made = {name: share for name, share in shares.items() if share > 0}
        super().__init__(list(made), seed, rank, settings, au_names)
        self._ends = np.cumsum(list(made.values()))

    def names(self, numbers: Sequence[int]) -> list[str]:
        """Returns the expressions of the faces with these numbers."""
        offset = np.uint64(2 * keyed_seed(self.seed, self.rank, Stream.POOL_SHARES))
        with np.errstate(over="ignore"):  # it wraps around, which is the point
            turned = offset + np.asarray(numbers, dtype=np.uint64) * _GOLDEN
        point = (turned >> np.uint64(11)).astype(np.float64) * 2.0**-53
        place = np.searchsorted(self._ends[:-1], point * self._ends[-1], side="right")
        return [self.expressions[index] for index in place]


class SuccessivePlan(EndlessPlan):
    """Faces for the pool of one rank, first by one plan, from some number on by the next.

    Args:
        plans: (first number, plan of the same seed and rank) in ascending order; the first begins at 0.
    """

    def __init__(self, plans: Sequence[tuple[int, EndlessPlan]]) -> None:
        last = plans[-1][1]
        super().__init__(last.expressions, last.seed, last.rank, last.settings, last.au_names)
        self._firsts, self._plans = [first for first, _ in plans], [plan for _, plan in plans]

    def names(self, numbers: Sequence[int]) -> list[str]:
        """Returns the expressions of the faces with these numbers."""
        names = [""] * len(numbers)
        of_plan: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            of_plan.setdefault(bisect.bisect_right(self._firsts, number) - 1, []).append(place)
        for which, places in of_plan.items():
            for place, name in zip(places, self._plans[which].names([numbers[p] for p in places]), strict=True):
                names[place] = name
        return names


_PLACES = 1 << 16
"""Places that are put in order together: the whole list of a million would take fifty megabytes."""


def _due_order(count: int, shares: np.ndarray) -> np.ndarray:
    """Returns which of K classes is due at each of ``count`` places, int16 (count,); ties go to the first class.

    Face k of a class with share s is due at (k + 1/2) / s, so that all that is due before a time is known from the
    time alone, and one stretch of time after the other can be put in order.
    """
    order = np.empty(count, dtype=np.int16)
    made = [0] * len(shares)
    place, until = 0, 0.0
    while place < count:
        until += _PLACES
        which, due = [], []
        for k, share in enumerate(shares.tolist()):
            # A few more than are due by then; those due later are left to the next stretch.
            most = max(0, math.ceil(until * share) + 1 - made[k]) if share > 0 else 0
            times = (np.arange(made[k], made[k] + most) + 0.5) / share if most else np.empty(0)
            times = times[times < until]
            made[k] += len(times)
            which.append(np.full(len(times), k, dtype=np.int16))
            due.append(times)
        classes = np.concatenate(which)
        part = classes[np.lexsort((classes, np.concatenate(due)))][: count - place]
        order[place : place + len(part)] = part
        place += len(part)
    return order
