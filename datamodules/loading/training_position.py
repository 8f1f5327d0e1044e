"""Where a training stands in its data: the one thing that a resumed run reads its place from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class TrainingPosition:
    """A place between two optimiser steps, told for all ranks together.

    Attributes:
        epoch: the running epoch, from 0.
        batches: batches of it that each rank has trained on, 0 … steps − 1.
        steps: batches of an epoch on each rank.
        world_size: ranks.
        batch_size: samples per batch and rank.
        real_in_epoch: real rows drawn in this epoch.
        samples: samples drawn in the run at the present ratio; floor(ratio · samples) of them were synthetic, the
            fraction that is left over goes into the next batch.
        ratio: share of synthetic samples.
        real: real rows drawn in the run, whatever the ratios.
        synthetic: synthetic samples drawn in the run.
    """

    epoch: int = 0
    batches: int = 0
    steps: int = 1
    world_size: int = 1
    batch_size: int = 1
    real_in_epoch: int = 0
    samples: int = 0
    ratio: float = 0.0
    real: int = 0
    synthetic: int = 0

    def moved_to(self, **changes: Any) -> TrainingPosition:
        """Returns the position with some of its numbers changed."""
        return replace(self, **changes)

    def state_dict(self) -> dict[str, Any]:
        """Returns plain numbers by name."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> TrainingPosition:
        """Returns what :meth:`state_dict` gave.

        Raises:
            ValueError: a number is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        odd = sorted(names ^ set(state))
        if odd:
            raise ValueError(f"checkpoint: the position in the data has '{odd[0]}' missing or unknown")
        return cls(**state)
