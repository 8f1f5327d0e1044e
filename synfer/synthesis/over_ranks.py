"""A large request made on all ranks together, each its share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from synfer.foundation.counter_based_random import key_of
from synfer.foundation.default_ranks import default_ranks
from synfer.synthesis.hooks import FaceHook
from synfer.synthesis.request import SynthesisRequest
from synfer.synthesis.synthesiser import Synthesiser


def share_of(request: SynthesisRequest, rank: int, world_size: int) -> SynthesisRequest:
    """Returns what one rank makes of a request: equally much on all ranks, one after the other.

    The last ranks' shares are filled up with samples of the start: gathering needs equal shapes.
    """
    share = -(-len(request) // world_size)
    return request.rows([(rank * share + i) % len(request) for i in range(share)])


def synthesise_over_ranks(
    synthesiser: Synthesiser, request: SynthesisRequest, hooks: Sequence[FaceHook], batch_size: int
) -> dict[str, Tensor]:
    """Makes a large request in batches, each rank its share, and gathers all of it on all ranks.

    A collective: every rank must call it with the same request.

    Args:
        synthesiser: the same weights on all ranks.
        request: what to make.
        hooks: layout initialisation, semantic guidance, pseudo-labeller, …
        batch_size: faces at a time on each rank.

    Returns:
        "images" uint8 (n, 3, H, W), "label" (n,), "soft_label" (n, K), "kept" (n,) and "layout_source" int64 (n,),
        keys of the sample ids (0 = none), in the order of the request, on the CPU.
    """
    world_size, rank = default_ranks(None, None)
    mine = share_of(request, rank, world_size)
    parts = [synthesiser.synthesise(mine.part(i, i + batch_size), hooks) for i in range(0, len(mine), batch_size)]
    columns = {n: torch.cat([getattr(p, n) for p in parts]) for n in ("images", "label", "soft_label", "kept")}
    sources = [key_of(source) if source else 0 for part in parts for source in part.layout_source]
    columns["layout_source"] = torch.tensor(sources, device=columns["label"].device)
    return {name: _gathered(local, world_size)[: len(request)].cpu() for name, local in columns.items()}


def _gathered(local: Tensor, world_size: int) -> Tensor:
    """Returns the rows of all ranks, rank by rank."""
    if world_size == 1:
        return local
    found = [torch.empty_like(local) for _ in range(world_size)]
    dist.all_gather(found, local.contiguous())
    return torch.cat(found)
