"""Which samples of a batch train without caption, without action units, or without either."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConditionDropout:
    """Shares of samples whose conditions are left out, so that guidance has a trained unconditional branch.

    Classifier-free guidance (Ho and Salimans 2022), for two conditions.

    Attributes:
        text: share of samples that train without caption.
        au: share that train without AUs.
        both: share that train without either.

    Raises:
        ValueError: a share outside [0, 1], or more than 1 in all.
    """

    text: float = 0.05
    au: float = 0.05
    both: float = 0.05

    def __post_init__(self) -> None:
        for name, share in (("text", self.text), ("au", self.au), ("both", self.both)):
            if not 0 <= share <= 1:
                raise ValueError(f"model.drop.{name}: found {share}, expected a share in [0, 1]")
        if (total := self.text + self.au + self.both) > 1:
            raise ValueError(f"model.drop: shares add up to {total:g}, expected at most 1")

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns which of n samples lose their caption and which their action units: bool (n,) each."""
        draw = torch.rand(n, generator=generator, device=generator.device)
        text, au, both = self.text, self.au, self.both
        no_text = (draw < text) | ((draw >= text + au) & (draw < text + au + both))
        return no_text, (draw >= text) & (draw < text + au + both)
