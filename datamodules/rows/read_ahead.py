"""Work that is done in threads ahead of whoever takes it, in order and never far ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
