"""Which faces are to be made: what, not how.

A plan decides which expression has place i; caption, action units and noise follow from (expression, seed, sample id)
alone, in :meth:`SynthesisRequest.from_expressions`, whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from synfer.faces.action_units import ACTION_UNITS
from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.random_streams import Stream
from synfer.synthesis.request import SynthesisRequest, SynthesisSettings

RANK_STRIDE = 1 << 40
"""Sample ids of a pool: number + rank × this, so that those of different ranks never meet."""


class Plan(Protocol):
    """A list of faces, each a pure function of (seed, place in the list)."""

    def __len__(self) -> int: ...

    def request(self, indices: Sequence[int]) -> SynthesisRequest:
        """Returns what to make for these places of the list."""
        ...


class EvenPlan:
    """``count`` faces, the expressions in turn: a set, or the faces of a test.

    Args:
        count: number of faces.
        expressions: K names to make.
        seed: of the whole list.
        settings: how to make them; None = the synthesiser's own.
        au_names: names of the action units.
        done: sample ids that exist already and are left out.
    """

    def __init__(
        self,
        count: int,
        expressions: Sequence[str],
        seed: int,
        settings: SynthesisSettings | None = None,
        au_names: Sequence[str] = ACTION_UNITS,
        done: np.ndarray | None = None,
    ) -> None:
        self.expressions, self.seed, self.settings, self.au_names = list(expressions), seed, settings, au_names
        missing = np.ones(count, dtype=bool)
        if done is not None:
            missing[done[done < count]] = False
        self.to_do = np.flatnonzero(missing)

    def __len__(self) -> int:
        return len(self.to_do)

    def request(self, indices: Sequence[int]) -> SynthesisRequest:
        """Returns the faces at these places of what is left to do."""
        ids = self.to_do[np.asarray(indices, dtype=np.int64)].tolist()
        return SynthesisRequest.from_expressions(self.names(ids), ids, self.seed, self.settings, self.au_names)

    def names(self, ids: Sequence[int]) -> list[str]:
        """Returns the expressions of the faces with these sample ids."""
        return [self.expressions[i % len(self.expressions)] for i in ids]


class EndlessPlan:
    """Faces for the pool of one rank, without end: the expressions evenly, each round in a new random order.

    Args:
        expressions: K names to make.
        seed: of the run.
        rank: whose pool it is.
        settings: how to make them; None = the synthesiser's own.
        au_names: names of the action units.
    """

    def __init__(
        self,
        expressions: Sequence[str],
        seed: int,
        rank: int = 0,
        settings: SynthesisSettings | None = None,
        au_names: Sequence[str] = ACTION_UNITS,
    ) -> None:
        self.expressions, self.seed, self.rank = list(expressions), seed, rank
        self.settings, self.au_names = settings, au_names

    def __len__(self) -> int:
        return RANK_STRIDE

    def request(self, indices: Sequence[int]) -> SynthesisRequest:
        """Returns the faces with these numbers."""
        ids = [int(number) + self.rank * RANK_STRIDE for number in indices]
        return SynthesisRequest.from_expressions(self.names(indices), ids, self.seed, self.settings, self.au_names)

    def names(self, numbers: Sequence[int]) -> list[str]:
        """Returns the expressions of the faces with these numbers."""
        rounds, place = np.divmod(np.asarray(numbers, dtype=np.int64), len(self.expressions))
        order = keyed_uniform(rounds, len(self.expressions), self.seed, self.rank, Stream.POOL_EXPRESSIONS).argsort(1)
        return [self.expressions[index] for index in order[np.arange(len(place)), place]]
