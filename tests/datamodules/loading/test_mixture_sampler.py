"""The mixture sampler: exact ratio, disjoint ranks, the same rows whatever the number of ranks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from datamodules.loading.class_sampling import ClassSampling
from datamodules.loading.mixture_sampler import MixtureSampler

N = 101


def _batches(
    ratio: float, batch_size: int, ranks: int = 1, rank: int = 0, epoch: int = 0, **more: Any
) -> list[np.ndarray]:
    sampler = MixtureSampler(N, 40, batch_size, ratio, seed=3, num_replicas=ranks, rank=rank, **more)
    sampler.set_epoch(epoch)
    drawn = np.array(list(sampler))
    assert len(drawn) == len(sampler)
    return np.split(drawn, len(drawn) // batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 10, 30])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1.0])
def test_exact_ratio_in_every_batch(ratio: float, batch_size: int) -> None:
    exact = Fraction(ratio).limit_denominator(1000) * batch_size
    ranks = [_batches(ratio, batch_size, ranks=3, rank=rank, steps_per_epoch=37) for rank in range(3)]
    synthetic = np.array([[int((batch >= N).sum()) for batch in batches] for batches in ranks])
    assert synthetic.sum(0).tolist() == [int(3 * exact * (k + 1)) - int(3 * exact * k) for k in range(37)]
    assert set(synthetic.flat) <= {int(exact), -int(-exact // 1)}
    assert max(abs(own - 37 * exact) for own in synthetic.sum(1).tolist()) < 1
    assert all(0 <= index < N + 40 for batches in ranks for batch in batches for index in batch)


def _cases(count: int) -> Iterator[tuple[random.Random, dict[str, Any]]]:
    draw = random.Random(1)
    for _ in range(count):
        case = {
            "num_real": draw.choice([1, 3, 10, 57, 500]),
            "batch_size": draw.choice([1, 2, 7, 8, 32]),
            "ratio": draw.choice([0, 0.01, 0.05, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.99, 1.0, round(draw.random(), 3)]),
            "steps_per_epoch": draw.choice([None, 1, 3, 5]),
            "synthetic_shared": draw.choice([True, False]),
        }
        ranks = draw.choice([1, 2, 3, 8])
        if case["num_real"] / (ranks * case["batch_size"] * max(1e-9, 1 - case["ratio"])) > 300:
            case["steps_per_epoch"] = 5
        yield draw, {**case, "ranks": ranks}


def _samplers(ranks: int, **case: Any) -> list[MixtureSampler]:
    return [MixtureSampler(num_synthetic_slots=40, seed=3, num_replicas=ranks, rank=k, **case) for k in range(ranks)]


def _epoch(samplers: list[MixtureSampler], epoch: int) -> list[np.ndarray]:
    """Returns for each rank what it draws in an epoch, a row per batch."""
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [np.array(list(sampler)).reshape(-1, sampler.batch_size) for sampler in samplers]


def test_exact_over_the_run_whatever_rows_batch_ratio_ranks_and_epochs() -> None:
    for _, case in _cases(500):
        samplers = _samplers(**case)
        ratio, ranks, n = samplers[0].ratio, case["ranks"], case["num_real"]
        drawn, synthetic, own = 0, 0, np.zeros(ranks)
        for epoch in range(3):
            batches = _epoch(samplers, epoch)
            if case["steps_per_epoch"] is None and ratio < 1:
                assert set(np.concatenate([rows[rows < n] for rows in batches])) == set(range(n)), case
            for step in range(samplers[0].steps):
                counts = np.array([(rows[step] >= n).sum() for rows in batches])
                own, synthetic = own + counts, synthetic + int(counts.sum())
                drawn += ranks * case["batch_size"]
                assert synthetic == int(ratio * drawn), (case, epoch, step)
                assert (abs(own - float(ratio * drawn / ranks)) < 1).all(), (case, epoch, step)
                position = samplers[0].position_at(epoch, step + 1)
                assert (position.real, position.synthetic) == (drawn - synthetic, synthetic)


def test_goes_on_at_any_position_and_on_other_ranks() -> None:
    for draw, case in _cases(150):
        samplers = _samplers(**case)
        n, epoch, step = case["num_real"], draw.randrange(3), draw.randrange(samplers[0].steps)
        position = samplers[0].position_at(epoch, step)
        resumed = _samplers(**case)
        assert all(sampler.resume_at(position) == position for sampler in resumed)
        whole, rest = _epoch(samplers, epoch), _epoch(resumed, epoch)
        assert all(np.array_equal(a[step:], b) for a, b in zip(whole, rest, strict=True)), case
        whole_after, rest_after = _epoch(samplers, epoch + 1), _epoch(resumed, epoch + 1)
        assert all(np.array_equal(a, b) for a, b in zip(whole_after, rest_after, strict=True)), case

        other = _samplers(**{**case, "ranks": draw.choice([1, 2, 4]), "batch_size": draw.choice([5, 8])})
        places = {sampler.resume_at(position) for sampler in other}
        assert len(places) == 1
        here, drawn, synthetic = places.pop(), position.samples, position.synthetic
        batches = _epoch(other, here.epoch)
        for k in range(len(batches[0])):
            synthetic += sum(int((rows[k] >= n).sum()) for rows in batches)
            drawn += len(other) * other[0].batch_size
            assert synthetic == int(other[0].ratio * drawn), case
        if case["steps_per_epoch"] is None and case["ratio"] < 1 and here.epoch == epoch:  # no row is lost
            seen = np.concatenate([rows[:step].ravel() for rows in whole] + [rows.ravel() for rows in batches])
            assert set(seen[seen < n]) == set(range(n)), case


@pytest.mark.parametrize("class_balanced", [False, True])
def test_ranks_are_disjoint_and_cover_every_row_once(class_balanced: bool) -> None:
    labels = np.arange(N) % 2 if class_balanced else None
    ranks = [
        np.concatenate(
            _batches(0.5, 8, ranks=2, rank=rank, class_labels=labels, class_balance=float(labels is not None), epoch=4)
        )
        for rank in range(2)
    ]
    real = [drawn[drawn < N] for drawn in ranks]
    both = np.concatenate(real)
    assert len(both) == 104  # ceil(101 / 8) steps of 2 ranks x 4 rows: three rows wrap around
    counts = np.bincount(both, minlength=N)
    assert counts.min() >= 1 - int(class_balanced) and counts.sum() == 104
    for step in range(13):
        assert not set(real[0][4 * step : 4 * step + 4]) & set(real[1][4 * step : 4 * step + 4])
    if not class_balanced:
        assert len(set(real[0]) & set(real[1])) <= 3


@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5])
def test_one_rank_with_double_batch_sees_what_two_ranks_see(ratio: float, class_balanced: bool) -> None:
    labels = np.arange(N) % 7 if class_balanced else None
    one = _batches(ratio, 16, epoch=2, class_labels=labels, class_balance=float(labels is not None))
    two = [
        _batches(ratio, 8, ranks=2, rank=rank, epoch=2, class_labels=labels, class_balance=float(labels is not None))
        for rank in range(2)
    ]
    assert len(one) == len(two[0]) == len(two[1])
    for step, batch in enumerate(one):
        joined = np.concatenate([two[0][step], two[1][step]])
        assert sorted(batch[batch < N]) == sorted(joined[joined < N])


def test_steps_of_an_epoch() -> None:
    assert len(_batches(0.0, 8)) == 13
    assert len(_batches(0.0, 8, ranks=2)) == 7
    assert len(_batches(0.5, 8)) == 26  # four real rows per batch
    assert len(_batches(1.0, 8)) == 13
    assert len(_batches(0.5, 8, steps_per_epoch=5)) == 5
    assert len(_batches(0.999, 8)) >= 101 / 0.01  # one real row in 125 batches of 8: still one pass over the real rows


def test_epochs_differ_and_repeat() -> None:
    first = np.concatenate(_batches(0.5, 8, epoch=0))
    assert np.array_equal(first, np.concatenate(_batches(0.5, 8, epoch=0)))
    assert not np.array_equal(first, np.concatenate(_batches(0.5, 8, epoch=1)))


def test_own_slots_differ_between_ranks_and_are_used_evenly() -> None:
    ranks = [np.concatenate(_batches(0.5, 8, ranks=2, rank=rank, steps_per_epoch=20)) for rank in range(2)]
    slots = [drawn[drawn >= N] - N for drawn in ranks]
    assert not np.array_equal(*slots)
    assert np.array_equal(np.bincount(slots[0], minlength=40), np.full(40, 2))


def test_shared_table_is_split_and_used_whole_over_epochs() -> None:
    drawn = []
    for epoch in range(5):
        for rank in range(2):
            batches = _batches(0.5, 8, ranks=2, rank=rank, epoch=epoch, steps_per_epoch=1, synthetic_shared=True)
            drawn.append(batches[0][batches[0] >= N] - N)
    assert sorted(np.concatenate(drawn)) == list(range(40))  # 5 epochs x 2 ranks x 4 rows, each once


@pytest.mark.parametrize("ranks", [1, 2])
def test_class_balance_is_exact_over_ranks(ranks: int) -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 3)
    drawn = [
        _batches(0.0, 6, ranks=ranks, rank=rank, class_labels=labels, class_balance=float(labels is not None))
        for rank in range(ranks)
    ]
    for step in range(len(drawn[0])):
        counts = np.bincount(labels[np.concatenate([batches[step] for batches in drawn])], minlength=3)
        assert set(counts) == {2 * ranks}
    rows = np.concatenate([batch for batches in drawn for batch in batches])
    for label in range(3):
        uses = np.bincount(rows, minlength=N)[labels == label]
        assert uses.max() - uses.min() <= 1


def test_a_ratio_that_changes_starts_with_nothing_left_over() -> None:
    (before,) = _samplers(1, num_real=N, batch_size=8, ratio=0.3)
    (after,) = _samplers(1, num_real=N, batch_size=8, ratio=0.5)
    here = after.resume_at(before.position_at(1, 3))
    assert here.samples == 0 and (here.real, here.synthetic) == (22 * 8 - 52, 52)
    assert [int((rows >= N).sum()) for rows in _epoch([after], here.epoch)[0]] == [4] * (after.steps - here.batches)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.5}, r"data\.synthetic_ratio=1\.5: expected a number in \[0, 1\]"),
        ({"ratio": 0.5, "num_synthetic_slots": 0}, "found no synthetic slots"),
        ({"num_real": 0}, "found 0 real rows"),
        ({"steps_per_epoch": 0}, "0 steps per epoch"),
        ({"class_labels": np.zeros(3)}, r"found class labels \(3,\)"),
        ({"class_shares": np.ones(1)}, r"found class shares with class_balance=0\.0 and class labels None, expected 0"),
        (
            {"class_shares": np.ones(1), "class_balance": 1.0, "class_labels": np.zeros(10, dtype=int)},
            r"found class shares with class_balance=1\.0 and class labels \(10,\), expected 0 and one per real row",
        ),
        (
            {"class_shares": np.array([0.5, 0.5]), "class_labels": np.zeros(10, dtype=int)},
            r"found class shares \[0\.5, 0\.5\], expected one above 0 for each class that has rows \(\[0\]\) and 0",
        ),
        ({"class_shares": np.array([0.9]), "class_labels": np.zeros(10, dtype=int)}, "and 0 for others, sum 1"),
    ],
)
def test_bad_numbers(arguments: dict, message: str) -> None:
    good = {"num_real": 10, "num_synthetic_slots": 4, "batch_size": 2, "ratio": 0.0, "seed": 0}
    with pytest.raises(ValueError, match=message):
        MixtureSampler(**{**good, **arguments})


def test_class_balance_between_nothing_and_all_draws_each_class_by_its_tempered_share() -> None:
    labels = np.repeat([0, 1, 2], [N - 20, 16, 4])
    batches = _batches(0.0, 10, class_labels=labels, class_balance=0.5, steps_per_epoch=40)
    weights = np.sqrt([N - 20, 16, 4])  # n^(1 − 0.5)
    for step in range(1, 41):  # all along the epoch, not only at its end
        drawn = np.bincount(labels[np.concatenate(batches[:step])], minlength=3)
        assert np.abs(drawn - 10 * step * weights / weights.sum()).max() <= 2


def test_class_balance_draws_what_it_always_has() -> None:
    labels = np.repeat([0, 1, 2], [N - 20, 16, 4])
    drawn = _batches(0.25, 10, epoch=1, class_labels=labels, class_balance=0.5, steps_per_epoch=3)
    before = [30, 83, 99, 49, 41, 29, 94, 104, 132, 137, 17, 91, 19, 1, 63, 97, 95, 68, 138, 131]
    assert np.concatenate(drawn).tolist() == [*before, 90, 64, 98, 66, 2, 67, 85, 123, 126, 136]


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("kind", ["balanced", "square_root", "effective_number", "repeat_factor"])
def test_samplers_of_the_classes_are_exact_on_one_two_and_three_ranks(kind: Any, ratio: float) -> None:
    labels = np.repeat([0, 1, 3, 4], [60, 25, 12, 4])  # no row of class 2
    shares = ClassSampling(kind, beta=0.98).shares(np.bincount(labels))
    more: dict[str, Any] = {"class_labels": labels, "class_shares": shares, "epoch": 2, "steps_per_epoch": 30}
    seen: dict[int, list[np.ndarray]] = {}
    for ranks in (1, 2, 3):
        of_rank = [_batches(ratio, 12 // ranks, ranks=ranks, rank=rank, **more) for rank in range(ranks)]
        seen[ranks] = [np.concatenate([batches[step] for batches in of_rank]) for step in range(30)]
        counts, uses, drawn, synthetic = np.zeros(5), np.zeros(N), 0, 0
        for step, batch in enumerate(seen[ranks]):
            real = batch[batch < N]
            drawn, synthetic = drawn + len(real), synthetic + len(batch) - len(real)
            counts += np.bincount(labels[real], minlength=5)
            assert (abs(counts - drawn * shares) < 1 + 1e-6).all()
            assert synthetic == int(Fraction(ratio).limit_denominator(10) * 12 * (step + 1))
            uses += np.bincount(real, minlength=N)
            # Ranks share no draw: no row comes once more before all of its class have come, whoever draws it.
            assert all(uses[labels == c].max() - uses[labels == c].min() <= 1 for c in (0, 1, 3, 4))
    for one, *others in zip(seen[1], seen[2], seen[3], strict=True):  # the same rows, whoever draws them
        assert all(sorted(one[one < N]) == sorted(other[other < N]) for other in others)
    again = _batches(ratio, 12, **more)
    assert all(np.array_equal(a, b) for a, b in zip(again, seen[1], strict=True))
    assert not np.array_equal(np.concatenate(_batches(ratio, 12, **{**more, "epoch": 3})), np.concatenate(again))


def test_a_run_with_class_shares_goes_on_anywhere_and_on_other_ranks() -> None:
    labels = np.repeat([0, 1, 2], [70, 25, 6])
    case: dict[str, Any] = {"num_real": N, "batch_size": 6, "ratio": 0.25, "class_labels": labels}
    case["class_shares"] = ClassSampling("square_root").shares(np.bincount(labels))
    one = _samplers(1, **case)
    position = one[0].position_at(1, 4)
    three = _samplers(3, **{**case, "batch_size": 2})
    assert {sampler.resume_at(position) for sampler in three} == {position.moved_to(world_size=3, batch_size=2)}
    whole, rest = _epoch(one, 1)[0], _epoch(three, 1)
    for step in range(4, one[0].steps):
        joined = np.concatenate([rows[step - 4] for rows in rest])
        assert sorted(joined[joined < N]) == sorted(whole[step][whole[step] < N])
