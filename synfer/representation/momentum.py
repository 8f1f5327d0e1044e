"""A teacher: the moving average of a network that learns, which follows it ever more slowly."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def cosine_momentum(step: int, total_steps: float, start: float) -> float:
    """Returns the teacher's momentum at a step: from ``start`` along half a cosine to 1 at the end (BYOL, MoCo v3).

    Args:
        step: from 0.
        total_steps: of the training; infinity keeps it at ``start``.
        start: in [0, 1].
    """
    if math.isinf(total_steps):
        return start
    share = min(1.0, step / max(1.0, total_steps))
    return 1 - (1 - start) * (1 + math.cos(math.pi * share)) / 2


def teacher_of(student: nn.Module) -> nn.Module:
    """Returns a copy of a network that gets no gradients."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Moves a teacher's parameters towards the student's: θ_t ← m·θ_t + (1 − m)·θ_s.

    Running statistics of its norms are its own: it sees the batches itself.

    Args:
        teacher: changed in place.
        student: of the same architecture.
        momentum: m in [0, 1].
    """
    targets, sources = ([p.detach() for p in network.parameters()] for network in (teacher, student))
    torch._foreach_lerp_(targets, sources, 1 - momentum)
