"""What differs between ranks, in the one checkpoint that rank 0 writes for all of them."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from synfer.foundation.default_ranks import default_ranks


def states_of_ranks(state: Any) -> list[Any]:
    """Returns every rank's state, in the order of the ranks; a collective where there are several.

    Lightning asks each rank for its state when a checkpoint is saved, and keeps rank 0's.
    """
    world_size, _ = default_ranks(None, None)
    if world_size == 1:
        return [state]
    states: list[Any] = [None] * world_size
    dist.all_gather_object(states, state)
    return states


def own_state(states: list[Any] | None) -> Any | None:
    """Returns this rank's state; None where there is none, or where the states are of another number of ranks."""
    world_size, rank = default_ranks(None, None)
    return states[rank] if states and len(states) == world_size else None


def counters(states: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns this rank's counters; of another number of ranks rank 0 takes the sums, so that totals stay true."""
    mine = own_state(states)
    if mine is not None:
        return {name: mine.get(name, 0) for name in names}
    is_first = default_ranks(None, None)[1] == 0
    return {name: sum(state.get(name, 0) for state in states) if is_first else 0 for name in names}
