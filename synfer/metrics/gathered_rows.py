"""Rows of several columns, collected on all ranks and put in one order."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class GatheredRows(Metric):
    """Keeps a row per sample and gives all rows of all ranks, sorted by key.

    The result is the same whatever the world size, the batch size and the share of each rank, none at all among them.
    Memory per rank: all rows, e.g. 400 MB for 50,000 samples with 2,048 features.

    Args:
        columns: name → an example of the column's tensor, of which type and shape behind the first dimension are taken.
    """

    full_state_update = False

    def __init__(self, columns: dict[str, Tensor]) -> None:
        super().__init__()
        self.columns = ("key", *columns)
        self._empty = {name: tensor[:0].cpu() for name, tensor in columns.items()}
        self._empty["key"] = torch.empty(0, dtype=torch.int64)
        for name in self.columns:
            self.add_state(f"_{name}", [], dist_reduce_fx="cat")

    def update(self, key: Tensor, **columns: Tensor) -> None:
        """Takes in n rows.

        Args:
            key: int64 (n,), unique over all ranks.
            columns: the columns named at the start, n rows each.
        """
        for name, values in {"key": key, **columns}.items():
            getattr(self, f"_{name}").append(values.to(self.device))

    def _sync_dist(self, *args: object, **kwargs: object) -> None:
        # A rank without a sample takes part with zero rows of the right shape.
        for name in self.columns:
            rows = getattr(self, f"_{name}")
            if not rows:
                rows.append(self._empty[name].to(self.device))
        super()._sync_dist(*args, **kwargs)  # type: ignore[arg-type]

    def compute(self) -> dict[str, Tensor]:
        """Returns the columns, ``key`` among them, sorted by key (a collective)."""
        rows = {name: self._joined(name) for name in self.columns}
        order = rows["key"].argsort()
        return {name: values[order] for name, values in rows.items()}

    def _joined(self, name: str) -> Tensor:
        rows = getattr(self, f"_{name}")
        if isinstance(rows, Tensor):  # after the ranks came together
            return rows
        return torch.cat([self._empty[name].to(self.device), *rows])
