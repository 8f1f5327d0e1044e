"""What goes on in the background keeps its order, is bounded, and hides no error."""

from __future__ import annotations

import threading

import pytest

from synfer.foundation.background_work import BackgroundWork


def test_work_is_done_in_order_and_beside_the_caller() -> None:
    done: list[tuple[int, int]] = []
    work = BackgroundWork()
    for number in range(50):
        work.give(lambda number=number: done.append((number, threading.get_ident())))
    work.finish()
    assert [number for number, _ in done] == list(range(50))
    assert {thread for _, thread in done} != {threading.get_ident()}
    work.close()
    work.close()  # once more does no harm


def test_no_more_waits_than_may() -> None:
    go_on, given = threading.Event(), []
    work = BackgroundWork(waiting=2)
    work.give(go_on.wait)

    def give() -> None:
        for number in range(5):
            work.give(lambda: None)
            given.append(number)

    giver = threading.Thread(target=give)
    giver.start()
    giver.join(0.3)
    assert len(given) <= 3 and giver.is_alive()
    go_on.set()
    giver.join(10)
    work.finish()
    assert given == list(range(5))
    work.close()


def test_an_error_reaches_the_caller_and_ends_the_work() -> None:
    done: list[int] = []
    work = BackgroundWork()

    def fail() -> None:
        raise OSError(28, "No space left on device")

    work.give(fail)
    with pytest.raises(OSError, match="No space left"):
        work.finish()
    with pytest.raises(OSError, match="No space left"):
        work.give(lambda: done.append(1))
    assert work.failed and not done
    work.close()
