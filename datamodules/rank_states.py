"""What differs between ranks, in the one checkpoint that rank 0 writes for all of them."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def states_of_ranks(state: Any) -> list[Any]:
    """Returns every rank's state, in the order of the ranks; a collective where there are several.

    Lightning asks each rank for its state when a checkpoint is saved, and keeps rank 0's.
    """
    if _world_size() == 1:
        return [state]
    states: list[Any] = [None] * _world_size()
    dist.all_gather_object(states, state)
    return states


def own_state(states: list[Any] | None) -> Any | None:
    """Returns this rank's state; None where there is none, or where the states are of another number of ranks."""
    if not states or len(states) != _world_size():
        return None
    return states[dist.get_rank() if _world_size() > 1 else 0]


def counters(states: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns this rank's counters; of another number of ranks rank 0 takes the sums, so that totals stay true."""
    mine = own_state(states)
    if mine is not None:
        return {name: mine.get(name, 0) for name in names}
    is_first = _world_size() == 1 or dist.get_rank() == 0
    return {name: sum(state.get(name, 0) for state in states) if is_first else 0 for name in names}


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
