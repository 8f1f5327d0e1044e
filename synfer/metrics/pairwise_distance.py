"""Euclidean distances between many features, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_PAIRS = 2**23
"""Distances held at once: 64 MiB in float64."""


def distance_blocks(queries: Tensor, references: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields (rows, distances of these queries to all references (b, m)), float64.

    Float64, because ‖x‖² + ‖y‖² − 2 x·y cancels for the close pairs that matter most.

    Args:
        queries: (n, D) float64.
        references: (m, D) float64.
    """
    step = max(1, BLOCK_PAIRS // max(1, len(references)))
    lengths = references.square().sum(1)
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        block = queries[rows]
        squares = torch.addmm(lengths[None], block, references.T, alpha=-2)
        squares += block.square().sum(1, keepdim=True)
        yield rows, squares.clamp_min_(0).sqrt_()
