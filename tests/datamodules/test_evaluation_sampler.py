"""The evaluation sampler: every row once over all ranks."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.evaluation_sampler import EvaluationSampler


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 24])
def test_every_row_exactly_once(ranks: int, count: int) -> None:
    samplers = [EvaluationSampler(range(count), ranks, rank) for rank in range(ranks)]
    rows = [row for sampler in samplers for row in sampler]
    assert sorted(rows) == list(range(count))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
    assert max(map(len, samplers)) - min(map(len, samplers)) <= 1


def test_another_order_is_shared_between_ranks() -> None:
    order = np.random.default_rng(0).permutation(11)
    ranks = [list(EvaluationSampler(range(11), 3, rank, order)) for rank in range(3)]
    assert [row for rows in zip(*(rows[:3] for rows in ranks), strict=True) for row in rows] == order[:9].tolist()
    assert sorted(row for rows in ranks for row in rows) == list(range(11))


def test_one_rank_without_a_process_group() -> None:
    assert list(EvaluationSampler(range(5))) == [0, 1, 2, 3, 4]
