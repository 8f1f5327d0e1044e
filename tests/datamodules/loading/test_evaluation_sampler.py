"""The evaluation sampler: every row once over all ranks."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.loading.evaluation_sampler import NO_ROW, EvaluationSampler
from datamodules.loading.mixed_dataset import MixedDataset
from datamodules.loading.planned_requests import PlannedRequests, requests_loader
from synfer.synthesis.plan import EvenPlan
from tests.fixtures.tiny_data import BASIC7, tiny_table


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 24])
def test_every_row_exactly_once(ranks: int, count: int) -> None:
    samplers = [EvaluationSampler(range(count), ranks, rank) for rank in range(ranks)]
    rows = [row for sampler in samplers for row in sampler if row != NO_ROW]
    assert sorted(rows) == list(range(count))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
    assert max(map(len, samplers)) - min(map(len, samplers)) <= 1


def test_another_order_is_shared_between_ranks() -> None:
    order = np.random.default_rng(0).permutation(11)
    ranks = [list(EvaluationSampler(range(11), 3, rank, order)) for rank in range(3)]
    assert [row for rows in zip(*(rows[:3] for rows in ranks), strict=True) for row in rows] == order[:9].tolist()
    assert sorted(row for rows in ranks for row in rows) == list(range(11))


def test_a_rank_without_a_row_has_a_batch_of_none() -> None:
    sampler = EvaluationSampler(range(1), 3, 2)
    assert list(sampler) == [NO_ROW] and len(sampler) == 1
    batch = MixedDataset(tiny_table(1)).__getitems__(list(sampler))
    assert batch["image"].shape == (0, 1, 8, 8) and batch["soft_label"].shape == (0, 7) and batch["sample_id"] == []
    with pytest.raises(ValueError, match="empty synthesis request"):  # refused before: SyntheticSetWriter.setup
        PlannedRequests(EvenPlan(1, BASIC7, 0)).__getitems__([NO_ROW])
    assert list(EvaluationSampler(range(0), 3, 2)) == []  # nothing for anybody: the loop is left by all


def test_one_rank_without_a_process_group() -> None:
    assert list(EvaluationSampler(range(5))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ranks", [1, 3])
def test_requests_come_in_batches_and_no_index_is_remembered(ranks: int) -> None:
    loaders = [requests_loader(EvenPlan(11, BASIC7, 0), 2, (ranks, rank)) for rank in range(ranks)]
    batches = [[request.sample_ids for request in loader] for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(found) for found in batches]
    assert sorted(i for found in batches for ids in found for i in ids) == list(range(11))
    assert all(len(ids) == 2 for found in batches for ids in found[:-1])
    assert all(loader.batch_sampler is None for loader in loaders)  # Lightning would wrap one, and keep every index
