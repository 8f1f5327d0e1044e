"""Ranks make faces in the same steps, whatever a vote leaves each of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.synthesis.faces_due import all_make_faces, steps_between_looks

MODULE: Any = SimpleNamespace(device=torch.device("cpu"))


def answer(own: float | None, *others: float | None) -> bool:
    """Returns what a rank is told whose pool lacks ``own`` faces, while those of the others lack theirs."""

    def reduce(tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        there = [[0.0, 0.0] if due is None else [due, 1.0] for due in others]
        return tensor + torch.tensor(there, dtype=tensor.dtype).sum(0)

    trainer: Any = SimpleNamespace(world_size=1 + len(others), strategy=SimpleNamespace(reduce=reduce))
    return all_make_faces(trainer, MODULE, own, 8)


@pytest.mark.parametrize(("due", "wanted"), [(7.9, False), (8.0, True), (None, False)])
def test_one_rank_makes_what_it_lacks(due: float | None, wanted: bool) -> None:
    assert answer(due) is wanted


def test_several_make_them_together_when_the_mean_is_due() -> None:
    assert not answer(10.0, 5.0) and not answer(5.0, 10.0)
    assert answer(10.0, 6.0) and answer(6.0, 10.0)


def test_a_rank_that_has_all_it_may_make_does_not_count() -> None:
    assert answer(9.0, None) and answer(None, 9.0)
    assert not answer(7.0, None)
    assert not answer(None, None)


def test_they_ask_each_other_some_times_between_two_batches() -> None:
    assert steps_between_looks(64, 24.0, 32.0) == 6
    assert steps_between_looks(6, 2.0, 7.0) == 1
    assert steps_between_looks(6, 2.0, 0.0) >= 1
