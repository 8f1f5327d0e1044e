from __future__ import annotations

import itertools
import threading
import time

import pytest

from datamodules.rows.read_ahead import in_threads, read_ahead


def test_results_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.01 * (item % 3))
        return item * item

    assert list(read_ahead(work, range(20), threads=4, ahead=7)) == [(item, item * item) for item in range(20)]
    assert list(read_ahead(work, [], threads=1, ahead=1)) == []


def test_no_more_items_are_taken_than_are_to_be_ahead() -> None:
    taken: list[int] = []

    def items() -> itertools.count[int]:
        for item in itertools.count():
            taken.append(item)
            yield item  # type: ignore[misc]

    found = read_ahead(lambda item: item, items(), threads=2, ahead=5)
    assert [next(found)[0] for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 3 + 5
    found.close()  # type: ignore[attr-defined]


def test_work_goes_on_in_other_threads_and_its_errors_come_up_in_their_turn() -> None:
    names = set()

    def work(item: int) -> int:
        names.add(threading.current_thread().name)
        return 6 // (3 - item)

    found = read_ahead(work, range(9), threads=2, ahead=9)
    assert [next(found) for _ in range(3)] == [(0, 2), (1, 3), (2, 6)]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert threading.current_thread().name not in names


def test_short_work_on_many_items_comes_in_their_order_and_only_what_is_taken_is_far_ahead() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        return -item

    assert list(in_threads(work, range(1000))) == [-item for item in range(1000)]
    assert sorted(done) == list(range(1000))
    assert list(in_threads(work, [])) == []
    done.clear()
    found = in_threads(work, range(10**6))
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert len(done) < 10**5
