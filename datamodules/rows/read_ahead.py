"""Work that is done in threads, in order: ahead of whoever takes it and never far ahead, or all of it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_ONCE = 64
"""Pieces of short work that a thread does before it is given others: to hand out each alone takes longer than it."""


def read_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Yields each item with what the work on it gives, in the order of the items.

    Decoding releases the interpreter lock, so that it goes on while the network computes.

    Args:
        work: done in a thread; what it raises comes up when its item is due.
        items: may be endless: of these at most ``ahead`` are taken before they are due.
        threads: number of threads, ≥ 1.
        ahead: number of items that are at work or done, ≥ 1.
    """
    source = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in islice(source, ahead):
                waiting.append((item, pool.submit(work, item)))
            while waiting:
                item, future = waiting.popleft()
                result = future.result()
                for following in islice(source, 1):
                    waiting.append((following, pool.submit(work, following)))
                yield item, result
        finally:
            for _, future in waiting:
                future.cancel()


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yields what short work on each item gives, in the order of the items; see :func:`read_ahead`."""

    def several(start: int) -> list[Result]:
        return [work(item) for item in items[start : start + _AT_ONCE]]

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(32, allowed + 4)  # more than there are cores, for some wait for the disk
    for _, results in read_ahead(several, range(0, len(items), _AT_ONCE), threads, 4 * threads):
        yield from results
