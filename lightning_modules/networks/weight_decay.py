"""Weight decay on matrices and kernels alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter


def decay_groups(parameters: Iterable[Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Returns two parameter groups of an optimiser: what decays, and biases and norms, which do not.

    Args:
        parameters: those without gradient are left out.
        weight_decay: of the first group.
    """
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
