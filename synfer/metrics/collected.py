"""All values of an evaluation, from all ranks: for what no running sum can compute."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Collected(Metric):
    """Rows of all batches and all ranks; ranks may hold different numbers of rows.

    Args:
        columns: numbers per row.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, values: Tensor) -> None:
        """Takes in (n, columns)."""
        self.rows.append(values.float())

    def _sync_dist(self, *args: object, **kwargs: object) -> None:
        # A rank without a row takes part with zero rows of the right width.
        if not self.rows:
            self.rows.append(torch.empty(0, self.columns, device=self.device))
        super()._sync_dist(*args, **kwargs)  # type: ignore[arg-type]

    def compute(self) -> Tensor:
        """Returns float32 (N, columns)."""
        rows = self.rows
        return dim_zero_cat(rows) if len(rows) else torch.empty(0, self.columns, device=self.device)
