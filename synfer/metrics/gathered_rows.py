"""Rows of several columns, collected on all ranks: for what no running sum can compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor
from torchmetrics import Metric


class GatheredRows(Metric):
    """Keeps a row per sample and gives all rows of all ranks, which may hold different numbers of rows, or none.

    With keys the rows are sorted by them, and the result is the same whatever the world size, the batch size and the
    share of each rank; without, they stand in the order of the ranks. Memory per rank: all rows, e.g. 400 MB for 50,000
    samples with 2,048 features.

    Args:
        columns: name → an example of the column's tensor, of which type and shape behind the first dimension are taken.
        keyed: whether each row comes with a key.
    """

    full_state_update = False

    def __init__(self, columns: dict[str, Tensor], keyed: bool = True) -> None:
        super().__init__()
        self._empty = {name: tensor[:0].cpu() for name, tensor in columns.items()}
        if keyed:
            self._empty = {"key": torch.empty(0, dtype=torch.int64), **self._empty}
        for name in self._empty:
            self.add_state(f"_{name}", [], dist_reduce_fx="cat")

    def update(self, key: Tensor | None = None, **columns: Tensor) -> None:
        """Takes in n rows.

        Args:
            key: int64 (n,), unique over all ranks; None where rows have none.
            columns: the columns named at the start, n rows each.
        """
        given = columns if key is None else {"key": key, **columns}
        for name in self._empty:
            getattr(self, f"_{name}").append(given[name].to(self.device, self._empty[name].dtype))

    def _sync_dist(self, *args: object, **kwargs: object) -> None:
        # A rank without a sample takes part with zero rows of the right shape.
        for name, empty in self._empty.items():
            rows = getattr(self, f"_{name}")
            if not rows:
                rows.append(empty.to(self.device))
        super()._sync_dist(*args, **kwargs)  # type: ignore[arg-type]

    def compute(self) -> dict[str, Tensor]:
        """Returns the columns, ``key`` among them where there are keys, in one order (a collective)."""
        rows = {name: self._joined(name) for name in self._empty}
        if "key" not in rows:
            return rows
        order = rows["key"].argsort()
        return {name: values[order] for name, values in rows.items()}

    def _wrap_compute(self, compute: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
        wrapped = super()._wrap_compute(compute)

        @wraps(compute)
        def whole() -> dict[str, Tensor]:
            # torchmetrics makes a scalar of a single number: one row of a column is to stay a row.
            shapes = {name: (-1, *empty.shape[1:]) for name, empty in self._empty.items()}
            return {n: rows if rows.ndim else rows.reshape(shapes[n]) for n, rows in wrapped().items()}

        return whole

    def _joined(self, name: str) -> Tensor:
        rows = getattr(self, f"_{name}")
        if isinstance(rows, Tensor):  # after the ranks came together
            return rows
        return torch.cat([self._empty[name].to(self.device), *rows])
