"""Shares are kept by any number of ranks at any length, and a face is that of its number alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from synfer.faces.expressions import LABEL_SPACES
from synfer.synthesis.class_shares import PLANS, class_shares
from synfer.synthesis.plan import EndlessPlan, EvenPlan
from synfer.synthesis.proportional_plan import EndlessProportionalPlan, ProportionalPlan, SuccessivePlan

SPACE = LABEL_SPACES["ferplus8"]
COUNTS = dict(zip(SPACE, (8740, 7287, 3023, 3151, 560, 116, 2100, 120), strict=True))
"""Training rows of FER+, in round numbers."""


def shares_of(plan: str) -> dict[str, float]:
    return class_shares(plan, COUNTS, SPACE, "synthesis.plan")


def assert_kept(names: list[str], shares: dict[str, float], tolerance: float = 0.02) -> None:
    found = Counter(names)
    assert set(found) <= {name for name, share in shares.items() if share > 0}
    for name, share in shares.items():
        assert found[name] / len(names) == pytest.approx(share, abs=tolerance), name


# ---------------------------------------------------------------- sets


@pytest.mark.parametrize("plan", list(PLANS))
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shares_of_a_set_on_any_number_of_ranks(plan: str, ranks: int) -> None:
    shares, made = shares_of(plan), ProportionalPlan(300, shares_of(plan), seed=4)
    requests = [made.request(range(rank, 300, ranks)) for rank in range(ranks)]
    ids = [i for request in requests for i in request.sample_ids]
    assert sorted(ids) == list(range(300))
    assert_kept([name for request in requests for name in request.expressions], shares)


@pytest.mark.parametrize("plan", list(PLANS))
def test_a_longer_set_begins_with_the_shorter_one(plan: str) -> None:
    long = ProportionalPlan(5000, shares_of(plan), seed=4).request(range(5000))
    for count in (1, 2, 7, 8, 61, 300, 4999):
        short = ProportionalPlan(count, shares_of(plan), seed=4).request(range(count))
        assert short.expressions == long.expressions[:count] and short.sample_ids == long.sample_ids[:count]
        assert np.array_equal(short.action_units, long.action_units[:count])
        if count >= 300:
            assert_kept(list(short.expressions), shares_of(plan))


def test_equal_shares_make_an_even_set() -> None:
    even = EvenPlan(100, SPACE, 7).request(range(100))
    found = ProportionalPlan(100, shares_of("even"), 7).request(range(100))
    assert found.expressions == even.expressions and np.array_equal(found.action_units, even.action_units)


def test_filling_up_is_exact() -> None:
    missing = {name: max(COUNTS.values()) - count for name, count in COUNTS.items()}
    total = sum(missing.values())
    plan = ProportionalPlan(total, shares_of("fill"), 0)
    assert Counter(plan.names(range(total))) == {name: count for name, count in missing.items() if count}


def test_a_set_without_those_that_exist() -> None:
    whole = ProportionalPlan(20, shares_of("inverse"), 1)
    rest = ProportionalPlan(20, shares_of("inverse"), 1, done=np.array([0, 3, 99]))
    assert len(rest) == 18
    request = rest.request(range(18))
    assert list(request.sample_ids) == [i for i in range(20) if i not in (0, 3)]
    assert list(request.expressions) == whole.names(request.sample_ids)


# ---------------------------------------------------------------- pools


@pytest.mark.parametrize("plan", list(PLANS))
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shares_of_pools_on_any_number_of_ranks(plan: str, ranks: int) -> None:
    shares, per_rank = shares_of(plan), 300 // ranks
    for seed in range(5):
        requests = [EndlessProportionalPlan(shares, seed, rank).request(range(per_rank)) for rank in range(ranks)]
        ids = [i for request in requests for i in request.sample_ids]
        assert len(set(ids)) == per_rank * ranks
        assert_kept([name for request in requests for name in request.expressions], shares)


@pytest.mark.parametrize("first", [0, 1000, (1 << 40) - 300])
def test_any_stretch_of_a_pool_keeps_the_shares(first: int) -> None:
    for rank in range(3):
        names = EndlessProportionalPlan(shares_of("inverse"), 3, rank).names(range(first, first + 300))
        assert_kept(names, shares_of("inverse"))


def test_ranks_and_seeds_begin_elsewhere() -> None:
    begins = {
        tuple(EndlessProportionalPlan(shares_of("real"), seed, rank).names(range(200)))
        for seed in range(3)
        for rank in range(3)
    }
    assert len(begins) == 9


def test_orders_of_pools_stay_as_they_were() -> None:
    plan = EndlessProportionalPlan({"neutral": 0.5, "happy": 0.375, "sad": 0.125}, 5, 1)
    assert "".join(name[0] for name in plan.names(range(24))) == "shnhnnhnshnhnnhnhnnhnshn"


def test_a_number_is_the_same_face_whoever_asks_and_when() -> None:
    plan = SuccessivePlan(
        [
            (0, EndlessPlan(SPACE, 3, 2)),
            (8, EndlessProportionalPlan(shares_of("fill"), 3, 2)),
            (21, EndlessProportionalPlan(shares_of("real"), 3, 2)),
        ]
    )
    whole = plan.request(range(40))
    for places in ([5], [39, 0, 7, 22, 9], list(range(6, 30))):
        part = plan.request(places)
        assert part.expressions == tuple(whole.expressions[i] for i in places)
        assert part.sample_ids == tuple(whole.sample_ids[i] for i in places)
        assert np.array_equal(part.action_units, whole.action_units[places])


def test_plans_follow_each_other() -> None:
    first, second = EndlessPlan(SPACE, 3, 1), EndlessProportionalPlan(shares_of("fill"), 3, 1)
    both = SuccessivePlan([(0, first), (10, second)])
    assert both.names(range(30)) == [*first.names(range(10)), *second.names(range(10, 30))]
    assert both.request([12]).sample_ids == second.request([12]).sample_ids
