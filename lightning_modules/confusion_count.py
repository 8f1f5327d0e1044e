"""A confusion matrix over all ranks, for modules that learn the classes from the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synfer.metrics.confusion_scores import confusion_scores


class ConfusionCount:
    """Counts true and found classes of this rank.

    Args:
        names: of the K classes.
        device: of the labels.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self.counts = torch.zeros(len(self.names), len(self.names), dtype=torch.int64, device=device)

    def update(self, label: Tensor, found: Tensor) -> None:
        """Takes in faces.

        Args:
            label: int64 (B,); −1 counts nothing.
            found: int64 (B,).
        """
        k, known = len(self.names), label >= 0
        pairs = label[known] * k + found[known]
        self.counts += torch.bincount(pairs, minlength=k * k).view(k, k)

    def scores(self, trainer: Any) -> dict[str, float]:
        """Returns the scores of all ranks by name; {} of no row. A collective.

        Args:
            trainer: of the run.
        """
        total = trainer.strategy.reduce(self.counts.clone(), reduce_op="sum")
        return confusion_scores(total, self.names)
