"""Work that rank 0 does for all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from synfer.foundation.default_ranks import default_ranks

_T = TypeVar("_T")


def on_rank_zero_for_all(work: Callable[[], _T]) -> _T:
    """Runs ``work`` on rank 0 and returns its result on every rank.

    Raises:
        ValueError: rank 0's, on every rank, so that none of them waits for the others.
    """
    world_size, rank = default_ranks(None, None)
    if world_size == 1:
        return work()
    found: list[Any] = [None, None]
    error: Exception | None = None
    if rank == 0:
        try:
            found = [work(), None]
        except Exception as caught:
            error, found = caught, [None, str(caught)]
    dist.broadcast_object_list(found)
    if error is not None:
        raise error
    if found[1] is not None:
        raise ValueError(found[1])
    return found[0]
