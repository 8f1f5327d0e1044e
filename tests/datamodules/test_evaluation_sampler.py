"""The evaluation sampler: every row once over all ranks."""

from __future__ import annotations

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


def test_one_rank_without_a_process_group() -> None:
    assert list(EvaluationSampler(range(5))) == [0, 1, 2, 3, 4]
