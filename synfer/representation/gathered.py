"""Sums and rows over all ranks that let gradients through: ranks together are one process with a large batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from synfer.foundation.default_ranks import default_ranks


def gathered_rows(rows: Tensor) -> Tensor:
    """Returns the rows of all ranks, in the order of the ranks; gradients go back to the rank that a row is of.

    Where each rank's loss is a mean over its own rows, and DDP averages the gradients of the ranks, the step is that of
    one process whose batch holds the rows of all. A collective, in the backward pass too::

        rank 0: a b   rank 1: c d   →   both: a b c d
        gradient of b on rank 0 = ∂loss₀/∂b + ∂loss₁/∂b

    Args:
        rows: (n, …), the same n on each rank.
    """
    if default_ranks(None, None)[0] == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows.contiguous())
    return gathered


def summed(values: Tensor) -> Tensor:
    """Returns the sum over all ranks of a tensor, differentiable. A collective, in the backward pass too."""
    if default_ranks(None, None)[0] == 1:
        return values
    total: Tensor = _Sum.apply(values)
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        first = dist.get_rank() * ctx.count
        return gradient[first : first + ctx.count]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient
