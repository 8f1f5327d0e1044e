"""Work that rank 0 does for all ranks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from synfer.foundation.default_ranks import default_ranks

_T = TypeVar("_T")


def warn_on_rank_zero(message: str) -> None:
    """Warns once, on rank 0, as if the line that calls had done it; a launcher tells each rank its number by RANK."""
    if default_ranks(None, None)[1] == 0 and os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        warnings.warn(message, stacklevel=2)


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
