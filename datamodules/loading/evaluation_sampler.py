"""Splits evaluation rows between ranks, each row exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import numpy as np
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from synfer.foundation.default_ranks import default_ranks

NO_ROW = -1
"""Stands for no row at all."""


class EvaluationSampler(DistributedSampler, SequentialSampler):
    """Rows rank, rank + W, rank + 2W, … in order, without the padding that counts some rows twice.

    Ranks may hold one row, and thereby one batch, more than others: nothing may communicate per batch. Lightning leaves
    subclasses of ``DistributedSampler`` alone, and with ``trainer.overfit_batches`` those of ``SequentialSampler``. A
    rank without a row gets :data:`NO_ROW`, which data sets turn into a batch of none: without a batch it would leave
    the loop, and the others would wait for its metrics.

    Args:
        dataset: anything with a length.
        num_replicas: ranks W; None asks ``torch.distributed`` and means 1 without a process group.
        rank: this rank; None likewise.
        order: int64 (N,), the rows in another order than their own; None = their own.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_replicas: int | None = None,
        rank: int | None = None,
        order: np.ndarray | None = None,
    ) -> None:
        num_replicas, rank = default_ranks(num_replicas, rank)
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self.order = None if order is None else order.tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows() or [NO_ROW] * len(self))

    def __len__(self) -> int:
        return len(self._rows()) or min(1, _length(self.dataset))

    def _rows(self) -> Sequence[int]:
        rows = range(_length(self.dataset)) if self.order is None else self.order
        return rows[self.rank :: self.num_replicas]


def _length(dataset: Dataset) -> int:
    assert isinstance(dataset, Sized)
    return len(dataset)
