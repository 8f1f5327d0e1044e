"""The nearest of many references, which come in batches and on several ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from synfer.metrics.pairwise_distance import distance_blocks


class NearestReference(Metric):
    """Distance of each query to the nearest reference, and which one it is.

    Every rank holds the same queries and sees its own share of the references; ``compute`` is a collective and takes
    the nearest over all ranks. References are not kept.

    Args:
        queries: features (q, D).
    """

    full_state_update = False
    distance: Tensor
    row: Tensor

    def __init__(self, queries: Tensor) -> None:
        super().__init__()
        self._queries = queries.double()
        # Gathered as they are, (W, q): the row belongs to the smallest distance, which no built-in reduction knows.
        self.add_state("distance", torch.full((len(queries),), torch.inf, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("row", torch.full((len(queries),), -1), dist_reduce_fx=None)
        self.to(queries.device)

    def update(self, references: Tensor, rows: Tensor) -> None:
        """Takes in one batch.

        Args:
            references: features (b, D).
            rows: int64 (b,), a number for each reference, unique over all ranks.
        """
        for queries, distances in distance_blocks(self._queries, references.double()):
            near, place = distances.min(1)
            better = near < self.distance[queries]
            self.distance[queries] = torch.where(better, near, self.distance[queries])
            self.row[queries] = torch.where(better, rows[place], self.row[queries])

    def compute(self) -> tuple[Tensor, Tensor]:
        """Returns distances float64 (q,) and rows int64 (q,); inf and −1 where no rank saw a reference."""
        distance, row = self.distance.view(-1, len(self._queries)), self.row.view(-1, len(self._queries))
        near, rank = distance.min(0)
        return near, row.gather(0, rank[None])[0]
