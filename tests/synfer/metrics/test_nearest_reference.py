from __future__ import annotations

import pytest
import torch

from synfer.metrics import pairwise_distance
from synfer.metrics.nearest_reference import NearestReference


@pytest.mark.parametrize(("batch", "pairs"), [(1, 3), (7, 2**23), (50, 40)])
def test_finds_the_nearest_whatever_the_batches(batch: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise_distance, "BLOCK_PAIRS", pairs)
    generator = torch.Generator().manual_seed(0)
    queries, references = torch.randn(12, 5, generator=generator), torch.randn(50, 5, generator=generator)
    references[33] = queries[4]  # a copy
    search = NearestReference(queries)
    for rows in torch.arange(50).split(batch):
        search.update(references[rows], rows + 100)
    distance, row = search.compute()
    expected = torch.cdist(queries.double(), references.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert torch.allclose(distance, expected.values, atol=1e-6) and torch.equal(row, expected.indices + 100)
    assert row[4] == 133 and distance[4] < 1e-6


def test_without_references() -> None:
    distance, row = NearestReference(torch.zeros(2, 3)).compute()
    assert torch.isinf(distance).all() and (row == -1).all()
