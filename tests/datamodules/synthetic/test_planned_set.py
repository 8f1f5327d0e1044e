"""What a set holds follows from the settings and the training rows in use, which are read only where they matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers.reader import Reader, Split
from datamodules.rows.sample_table import SampleTable
from datamodules.synthetic.planned_set import PlannedSet
from synfer.synthesis.request import SynthesisRequest
from tests.fixtures.tiny_data import BASIC7, tiny_table

ROWS = (40, 30, 20, 10, 10, 5, 5)


class LongTailed(Reader):
    """Classes of very different sizes; notes which splits were read."""

    def __init__(self, rows: tuple[int, ...] = ROWS) -> None:
        self.label_space, self.rows = BASIC7, rows
        self.asked: list[str] = []

    def read(self, split: Split) -> SampleTable:
        self.asked.append(split)
        if split != "train":
            return tiny_table(14, split)
        table = tiny_table(7 * max(self.rows))
        chosen = [np.flatnonzero(table.label == k)[:n] for k, n in enumerate(self.rows)]
        return table.select(np.sort(np.concatenate(chosen)))


def made(world: int = 1, **settings: Any) -> tuple[list[SynthesisRequest], ExpressionDataModule]:
    """Returns what the ranks are asked to make, and the data module of the last one."""
    requests: list[SynthesisRequest] = []
    for rank in range(world):
        data = ExpressionDataModule(LongTailed(), eval_batch_size=7, seed=3, **settings)
        data._ranks = lambda rank=rank: (world, rank)  # type: ignore[method-assign, misc]
        data.setup("predict")
        requests += list(data.predict_dataloader())
    return requests, data


def expressions(requests: list[SynthesisRequest]) -> Mapping[str, int]:
    return Counter(name for request in requests for name in request.expressions)


def test_filling_up_makes_exactly_what_is_missing() -> None:
    requests, data = made(synthesis_plan="fill", synthesis_count=None)
    assert data.synthesis_count == sum(40 - n for n in ROWS) == 160
    assert expressions(requests) == {name: 40 - n for name, n in zip(BASIC7, ROWS, strict=True) if n < 40}
    some, data = made(synthesis_plan="fill", synthesis_count=None, synthesis_expressions=list(BASIC7[3:5]))
    assert expressions(some) == dict.fromkeys(BASIC7[3:5], 30)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("plan", ["real", "fill", "inverse"])
def test_shares_over_ranks(plan: str, world: int) -> None:
    requests, data = made(world, synthesis_plan=plan, synthesis_count=300)
    ids = [i for request in requests for i in request.sample_ids]
    assert sorted(ids) == list(range(300))
    assert data.planned_set.shares is not None
    found = expressions(requests)
    for name, share in data.planned_set.shares.items():
        assert found.get(name, 0) / 300 == pytest.approx(share, abs=0.02)
    assert data.planned_set.record == {"plan": {"name": plan, "shares": data.planned_set.shares}}


def test_rows_in_use_are_counted() -> None:
    _, whole = made(synthesis_plan="real")
    _, half = made(synthesis_plan="fill", synthesis_count=None, training_fraction=0.5)
    assert whole.planned_set.shares == pytest.approx({name: n / 120 for name, n in zip(BASIC7, ROWS, strict=True)})
    assert half.synthesis_count == sum(20 - n for n in (20, 15, 10, 5, 5, 2, 2))


def test_an_even_set_reads_nothing() -> None:
    requests, data = made(synthesis_count=14)
    assert isinstance(data.reader, LongTailed) and not data.reader.asked
    assert expressions(requests) == dict.fromkeys(BASIC7, 2) and data.planned_set.record == {}
    assert data.planned_set.names == list(BASIC7)


def test_expressions_of_which_there_is_no_face_are_not_named() -> None:
    _, data = made(synthesis_plan="fill")
    assert data.planned_set.names == list(BASIC7[1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"synthesis_plan": "feedback"},
            r"^data.synthesis_plan: found 'feedback', expected even, real, fill or inverse",
        ),
        ({"synthesis_plan": "evn"}, r"^data.synthesis_plan: found 'evn'"),
        ({"synthesis_count": None}, r"^data.synthesis_count=None: expected a number, or data.synthesis_plan=fill$"),
        ({"synthesis_count": 0}, r"^data.synthesis_count=0: expected at least 1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpressionDataModule(LongTailed(), **settings)


def test_what_the_training_rows_do_not_allow() -> None:
    def setup(rows: tuple[int, ...], **settings: Any) -> None:
        ExpressionDataModule(LongTailed(rows), **settings).setup("predict")

    with pytest.raises(ValueError, match=r"^data.synthesis_plan=inverse: found no training row of 'anger'"):
        setup((4, 4, 4, 4, 4, 4, 0), synthesis_plan="inverse")
    with pytest.raises(ValueError, match=r"^data.synthesis_plan=fill: .* there is nothing to fill up"):
        setup((4,) * 7, synthesis_plan="fill")
    with pytest.raises(ValueError, match=r"^data.synthesis_expressions: found 'contempt'"):
        setup(ROWS, synthesis_plan="fill", synthesis_expressions=["contempt"])


def test_a_list_before_the_rows_are_counted() -> None:
    planned = PlannedSet("real", 10, BASIC7)
    with pytest.raises(RuntimeError, match=r"the training rows have not been counted"):
        planned.faces(BASIC7, 0, None)
