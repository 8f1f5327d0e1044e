"""Which rank this process is, and of how many."""

from __future__ import annotations

import torch.distributed as dist


def default_ranks(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """Returns (world size, rank): as given, else from ``torch.distributed``, else (1, 0)."""
    in_group = dist.is_available() and dist.is_initialized()
    if num_replicas is None:
        num_replicas = dist.get_world_size() if in_group else 1
    if rank is None:
        rank = dist.get_rank() if in_group else 0
    return num_replicas, rank
