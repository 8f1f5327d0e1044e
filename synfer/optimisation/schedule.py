"""Learning-rate schedules as factors of the peak rate, and an optimiser that follows one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["one_cycle", "cosine", "constant"]

_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1e-4


def schedule_factor(schedule: Schedule, total_steps: int, warmup_fraction: float) -> Callable[[int], float]:
    """Returns the function step → factor in (0, 1] of the peak learning rate, for ``LambdaLR`` stepped every step.

    ``one_cycle`` (Smith and Topin, arXiv 1708.07120, without the cycle of the momentum) rises along a half cosine from
    1/25 to 1 and falls along one to 1e-4. ``cosine`` rises linearly and falls along a half cosine to 0. ``constant``
    rises linearly and stays. Each takes ``warmup_fraction`` of the steps to rise; past the end the last value stays.

    Args:
        schedule: which of the three.
        total_steps: optimiser steps of the whole training, at least 1.
        warmup_fraction: share of the steps spent rising, in [0, 1).

    Raises:
        ValueError: an unknown schedule or a value out of range.
    """
    if schedule not in ("one_cycle", "cosine", "constant"):
        raise ValueError(f"schedule: found '{schedule}', expected one_cycle, cosine or constant")
    if total_steps < 1 or not 0 <= warmup_fraction < 1:
        raise ValueError(
            f"schedule over {total_steps} steps with warmup_fraction {warmup_fraction}: expected at least 1 step and "
            "[0, 1)"
        )
    rise = round(warmup_fraction * total_steps)
    fall = max(1, total_steps - 1 - rise)  # the last of the steps 0 … total_steps − 1 is the lowest

    def factor(step: int) -> float:
        down = min(1.0, max(0.0, (step - rise) / fall))
        if schedule == "one_cycle":
            if step < rise:
                return _half_cosine(_ONE_CYCLE_START, 1.0, step / rise)
            return _half_cosine(1.0, _ONE_CYCLE_END, down)
        if step < rise:
            return (step + 1) / (rise + 1)
        return 1.0 if schedule == "constant" else _half_cosine(1.0, 0.0, down)

    return factor


def scheduled(optimizer: Optimizer, schedule: Schedule, total_steps: float, warmup_fraction: float) -> dict[str, Any]:
    """Returns optimiser and schedule as Lightning's ``configure_optimizers`` does, stepped every optimiser step.

    Args:
        optimizer: with the peak rates.
        schedule: as :func:`schedule_factor`.
        total_steps: optimiser steps of the whole training; inf = unknown, which only ``constant`` can do with.
        warmup_fraction: as :func:`schedule_factor`.

    Raises:
        ValueError: a schedule without an end.
    """
    if schedule == "constant" and math.isinf(total_steps):
        total_steps = 1
    if math.isinf(total_steps):
        raise ValueError("a schedule needs an end: set trainer.max_epochs or trainer.max_steps (found neither)")
    factor = schedule_factor(schedule, max(1, int(total_steps)), warmup_fraction)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
