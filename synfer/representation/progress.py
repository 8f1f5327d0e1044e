"""Settings of how a pre-training is watched while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NeighbourSettings:
    """The classifier by nearest faces, which needs no training.

    Args:
        neighbours: faces that vote.
        temperature: of their vote, > 0.
        bank: training faces among which they are sought, each class alike; null = all.

    Raises:
        ValueError: a value out of range.
    """

    neighbours: int = 20
    temperature: float = 0.07
    bank: int | None = 10000

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"model.neighbours.neighbours: found {self.neighbours}, expected at least 1")
        if not self.temperature > 0:
            raise ValueError(f"model.neighbours.temperature: found {self.temperature}, expected a number > 0")
        if self.bank is not None and self.bank < 1:
            raise ValueError(f"model.neighbours.bank: found {self.bank}, expected at least 1, or null")


@dataclass(frozen=True)
class CollapseSettings:
    """When a pre-training is given up whose embeddings have become all the same.

    Args:
        below: spread of the embeddings (1 = even, 0 = all the same) under which it is; 0 = never.
        grace_steps: optimiser steps before anybody looks.

    Raises:
        ValueError: a value out of range.
    """

    below: float = 0.02
    grace_steps: int = 500

    def __post_init__(self) -> None:
        if not 0 <= self.below < 1:
            raise ValueError(f"model.collapse.below: found {self.below}, expected a number in [0, 1)")
        if self.grace_steps < 0:
            raise ValueError(f"model.collapse.grace_steps: found {self.grace_steps}, expected at least 0")
