"""Sums in float64, on devices that have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Float64States(Metric):
    """A metric whose float64 states become float32 on a device without float64 (MPS)."""

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Any:
        try:
            return super()._apply(fn, exclude_state)
        except TypeError:  # MPS refuses float64
            for name in self._defaults:
                state = getattr(self, name)
                if isinstance(state, Tensor) and state.dtype == torch.float64:
                    setattr(self, name, state.float())
                    self._defaults[name] = torch.zeros_like(getattr(self, name))
            return super()._apply(fn, exclude_state)
