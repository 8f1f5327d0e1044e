"""The mixture sampler: exact ratio, disjoint ranks, the same rows whatever the number of ranks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from datamodules.mixture_sampler import MixtureSampler

N = 101


def _batches(ratio: float, batch_size: int, ranks: int = 1, rank: int = 0, epoch: int = 0, **more) -> list[np.ndarray]:
    sampler = MixtureSampler(N, 40, batch_size, ratio, seed=3, num_replicas=ranks, rank=rank, **more)
    sampler.set_epoch(epoch)
    drawn = np.array(list(sampler))
    assert len(drawn) == len(sampler)
    return np.split(drawn, len(drawn) // batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 10, 30])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1.0])
def test_exact_ratio_in_every_batch(ratio: float, batch_size: int) -> None:
    exact = Fraction(ratio).limit_denominator(1000) * batch_size
    for rank in range(3):
        batches = _batches(ratio, batch_size, ranks=3, rank=rank, steps_per_epoch=37)
        synthetic = [int((batch >= N).sum()) for batch in batches]
        assert synthetic == [int(exact * (k + 1)) - int(exact * k) for k in range(37)]
        if exact.denominator == 1:
            assert set(synthetic) == {int(exact)}
        assert all(0 <= index < N + 40 for batch in batches for index in batch)


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


def test_resumes_in_the_middle_of_an_epoch() -> None:
    whole = np.concatenate(_batches(0.25, 8, epoch=3))
    sampler = MixtureSampler(N, 40, 8, 0.25, seed=3, num_replicas=1, rank=0)
    sampler.resume_at(epoch=3, step=5)
    sampler.set_epoch(3)
    assert np.array_equal(list(sampler), whole[40:])
    sampler.set_epoch(4)
    assert len(list(sampler)) == len(sampler)
    sampler.resume_at(epoch=4, step=sampler.steps)  # saved at the very end: nothing to go on with
    assert sampler.first_batch == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.5}, r"data\.synthetic_ratio=1\.5: expected a number in \[0, 1\]"),
        ({"ratio": 0.5, "num_synthetic_slots": 0}, "found no synthetic slots"),
        ({"num_real": 0}, "found 0 real rows"),
        ({"steps_per_epoch": 0}, "0 steps per epoch"),
        ({"class_labels": np.zeros(3)}, r"found class labels \(3,\)"),
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
