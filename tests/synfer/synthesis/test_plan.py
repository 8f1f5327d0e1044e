"""What to make is a pure function of (seed, sample id), whoever asks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from synfer.faces.expressions import LABEL_SPACES
from synfer.synthesis.conditions import sample_name
from synfer.synthesis.plan import EndlessPlan, EvenPlan, Plan

SPACE = LABEL_SPACES["ferplus8"]


def test_same_sample_in_any_batch() -> None:
    plan = EvenPlan(20, SPACE, seed=4)
    whole, alone = plan.request(range(20)), plan.request([11])
    assert (alone.sample_ids, alone.seed) == ((11,), 4) and sample_name(4, 11) == "syn-4-000011"
    assert whole.sample_ids == tuple(range(20))
    assert np.array_equal(alone.action_units, whole.action_units[11:12])
    counts = Counter(whole.expressions).values()
    assert max(counts) - min(counts) <= 1
    assert whole.captions[1] == "a photo of a face with a happy expression" and whole.expressions[1] == "happy"
    assert len(plan) == 20


def test_sets_that_were_begun_go_on_with_the_same_faces() -> None:
    request = EvenPlan(20, SPACE, seed=4).request([11])
    known = [0.710325, 0.580764, 0.808756, 0.946312, 0.619502]  # as in every set since the first
    assert request.action_units[request.action_units > 0].tolist() == pytest.approx(known, abs=1e-6)
    assert request.expressions == ("surprise",)
    assert request.captions == ("a photo of a face with a surprised expression",)


def test_seeds_differ() -> None:
    first, second = (EvenPlan(4, LABEL_SPACES["basic7"], seed=s).request(range(4)) for s in (1, 2))
    assert not np.array_equal(first.action_units, second.action_units)


def test_chosen_expressions_without_those_that_exist() -> None:
    plan = EvenPlan(6, ["anger", "happy"], 1, done=np.array([0, 3, 99]))
    request = plan.request(range(len(plan)))
    assert request.sample_ids == (1, 2, 4, 5) and request.expressions == ("happy", "anger", "anger", "happy")


@pytest.mark.parametrize("plan", [EvenPlan(40, SPACE, 3), EndlessPlan(SPACE, 3), EndlessPlan(SPACE, 3, rank=2)])
def test_a_place_is_the_same_sample_whoever_asks_and_when(plan: Plan) -> None:
    whole = plan.request(range(40))
    for places in ([5], [39, 0, 7], list(range(8, 19))):
        part = plan.request(places)
        assert part.expressions == tuple(whole.expressions[i] for i in places)
        assert part.sample_ids == tuple(whole.sample_ids[i] for i in places)
        assert part.captions == tuple(whole.captions[i] for i in places)
        assert np.array_equal(part.action_units, whole.action_units[places])


def test_ranks_never_share_a_sample() -> None:
    ids = [i for rank in range(4) for i in EndlessPlan(SPACE, 0, rank).request(range(100)).sample_ids]
    assert len(set(ids)) == 400


def test_expressions_of_a_pool_come_evenly_in_an_order_that_varies() -> None:
    names = EndlessPlan(SPACE, 5).request(range(80)).expressions
    rounds = [names[i : i + 8] for i in range(0, 80, 8)]
    assert all(set(r) == set(SPACE) for r in rounds) and len(set(rounds)) > 2


def test_orders_of_pools_stay_as_they_were() -> None:
    names = ("neutral", "happy", "sad")
    assert "".join(name[0] for name in EndlessPlan(names, 5, 1).request(range(12)).expressions) == "shnhnsnhsnhs"
