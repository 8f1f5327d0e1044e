"""What tells the repetitions of a run apart: ``seed_everything``, and ``data.seed`` where it is another number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

Seed = int | tuple[int, int]
"""``seed_everything``, or (``seed_everything``, ``data.seed``); below zero in a run that recorded none."""


def seed_of(process: int | None, data: object) -> Seed | None:
    """Returns the seed of a run with these settings; None where the first was not recorded.

    Without ``data.seed`` the data follows ``seed_everything``, so a number given twice is the same repetition.
    """
    if process is None or not isinstance(data, int) or isinstance(data, bool) or data == process:
        return process
    return process, data


def unrecorded() -> Iterator[int]:
    """Returns numbers that no seed has: runs that recorded none cannot be paired, and each counts."""
    return count(-1, -1)


def is_recorded(seed: Seed) -> bool:
    """Whether a run recorded this seed."""
    return isinstance(seed, tuple) or seed >= 0


def in_order(seeds: Iterable[Seed]) -> list[Seed]:
    """Returns seeds in ascending order."""
    return sorted(seeds, key=lambda seed: seed if isinstance(seed, tuple) else (seed, seed))


def show_seed(seed: Seed) -> str:
    """Returns "1", or "1/2" where ``data.seed`` is 2."""
    return f"{seed[0]}/{seed[1]}" if isinstance(seed, tuple) else str(seed)
