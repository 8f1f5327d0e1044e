from __future__ import annotations

import numpy as np
import pytest

from datamodules.captions.streamed_images import StreamSettings
from datamodules.loading.stream_sampler import StreamSampler

PARTS = np.repeat(np.arange(12), [8, 8, 3, 8, 8, 8, 8, 8, 8, 5, 8, 8])  # 88 rows


def sampler(
    rank: int = 0,
    ranks: int = 1,
    batch: int = 4,
    buffer: int = 10,
    lanes: int = 1,
    seed: int = 0,
    steps: int | None = None,
) -> StreamSampler:
    settings = StreamSettings(buffer, lanes, skip_bad=False)
    return StreamSampler(PARTS, settings, 0, batch, 0.0, seed, ranks, rank, steps)


def epoch(one: StreamSampler, number: int) -> list[int]:
    one.set_epoch(number)
    return list(one)


@pytest.mark.parametrize(("ranks", "lanes", "batch"), [(1, 1, 4), (2, 1, 4), (2, 3, 4), (3, 2, 5), (1, 1, 88)])
def test_every_row_is_drawn_once_in_a_pass_and_ranks_are_disjoint(ranks: int, lanes: int, batch: int) -> None:
    drawn = [epoch(sampler(rank, ranks, batch, lanes=lanes), 0) for rank in range(ranks)]
    steps = len(drawn[0]) // batch
    in_order = [row for step in range(steps) for one in drawn for row in one[step * batch : (step + 1) * batch]]
    assert sorted(in_order[:88]) == list(range(88))  # nothing is dropped
    assert len(in_order) - 88 < ranks * batch  # what fills the last batch up
    whole = (steps - 1) * batch
    for rank, one in enumerate(drawn):
        others = {row for other in drawn[:rank] + drawn[rank + 1 :] for row in other[:whole]}
        assert not set(one[:whole]) & others


def test_each_rank_and_lane_reads_parts_of_its_own() -> None:
    for ranks, lanes in ((2, 1), (2, 2)):
        read: dict[tuple[int, int], set[int]] = {}
        for rank in range(ranks):
            one = epoch(sampler(rank, ranks, lanes=lanes), 3)
            for step in range(88 // (4 * ranks)):
                read.setdefault((rank, step % lanes), set()).update(PARTS[one[4 * step : 4 * step + 4]].tolist())
        shared = sum(map(len, read.values())) - 12
        assert shared <= 2 * ranks * lanes  # only parts at the borders are read twice, and at the uneven end


def test_a_row_moves_by_less_than_the_buffer() -> None:
    for buffer in (1, 7, 30):
        drawn = np.array(epoch(sampler(buffer=buffer), 1))
        unshuffled = np.array(epoch(sampler(buffer=1), 1))
        place = np.argsort(unshuffled)
        moved = np.abs(place[drawn] - np.arange(88))
        assert moved.max() < max(buffer, 1) and (buffer == 1 or moved.mean() > buffer / 8)
    assert len(np.unique(PARTS[unshuffled[:8]])) <= 3


def test_order_is_of_seed_and_epoch() -> None:
    assert epoch(sampler(), 2) == epoch(sampler(), 2)
    assert len({tuple(epoch(sampler(seed=seed), number)) for seed in (0, 1) for number in (0, 1)}) == 4
    random_parts = [PARTS[epoch(sampler(buffer=1), number)][0] for number in range(8)]
    assert len(set(random_parts)) > 3


def test_more_steps_than_a_pass_go_on_with_another_pass() -> None:
    drawn = epoch(sampler(steps=44), 0)
    assert sorted(drawn[:88]) == sorted(drawn[88:]) == list(range(88)) and drawn[:88] != drawn[88:]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_stream_reads_on_where_it_stopped(ranks: int) -> None:
    for rank in range(ranks):
        whole = epoch(sampler(rank, ranks, lanes=2), 1)
        resumed = sampler(rank, ranks, lanes=2)
        resumed.resume_at(sampler(0, ranks, lanes=2).position_at(1, 5))
        assert epoch(resumed, 1) == whole[20:]
        assert epoch(resumed, 2) == epoch(sampler(rank, ranks, lanes=2), 2)


def test_another_division_of_the_stream_is_refused() -> None:
    position = sampler(0, 2).position_at(1, 5)
    with pytest.raises(ValueError, match=r"in the middle of an epoch of 2 ranks with batches of 4, expected 1 with 8"):
        sampler(batch=8).resume_at(position)
    sampler(batch=8).resume_at(sampler(0, 2).position_at(2, 0))  # between two epochs nothing is left over
    stored = sampler(lanes=2).order_settings()
    sampler(lanes=2).check_order(stored)
    with pytest.raises(ValueError, match=r"a checkpoint of a stream with lanes=2, expected 1 as now"):
        sampler(lanes=1).check_order(stored)


def test_beside_synthetic_samples_the_ratio_stays_exact() -> None:
    settings = StreamSettings(10, 1, skip_bad=False)
    ranks = [StreamSampler(PARTS, settings, 6, 4, 0.25, 0, 2, rank) for rank in range(2)]
    drawn = [epoch(one, 0) for one in ranks]
    real = [row for one in drawn for row in one if row < 88]
    assert all(sum(row >= 88 for row in one[s : s + 4]) == 1 for one in drawn for s in range(0, len(one), 4))
    assert set(real) == set(range(88)) and len(real) - 88 < 6
