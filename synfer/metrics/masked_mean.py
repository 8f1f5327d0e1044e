"""A mean that knows when there was nothing to average."""

from __future__ import annotations

import torch
from torch import Tensor

from synfer.metrics.float64_states import Float64States


class MaskedMean(Float64States):
    """Mean over all samples of all ranks; NaN where no rank saw one (torchmetrics' own gives 0).

    Ranks may see different numbers of samples, none among them: sum and count are added up apart. The sum is kept in
    float64, on MPS, which has none, in float32.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor, counted: Tensor | None = None) -> None:
        """Takes in one batch.

        Args:
            values: one number per sample, (n,); n may be 0.
            counted: bool (n,), which samples count; None counts all. A mask, because picking them out would make the
                host wait for the device at each step.
        """
        if counted is None:
            counted = torch.ones_like(values, dtype=torch.bool)
        self.total += torch.where(counted, values, 0.0).sum()
        self.count += counted.sum()

    def sums(self) -> tuple[float, int]:
        """Returns this rank's sum and number of samples so far, as plain numbers for a checkpoint."""
        return float(self.total), int(self.count)

    def add_sums(self, total: float, count: int) -> None:
        """Takes in what :meth:`sums` gave."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """Returns the mean, a float32 scalar."""
        return (self.total / self.count).float()
