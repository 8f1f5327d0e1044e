"""A threshold of confidence for each class that follows how confident voters are about it."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor


class ClassThresholds:
    """Discards the weakest share of each class, whatever the class's own level of confidence.

    One fixed threshold empties the classes that voters find hard. As in dynamic thresholds for semi-supervised
    expression recognition (arXiv 2303.08617), every class has its own, from the confidences last seen for it: of n of
    them the k-th smallest, k = ⌊quantile · (n + 1)⌋. A further face like these falls below it with probability
    k / (n + 1), however few faces of a class a batch holds; while k is 0 there is no threshold (0).

    Args:
        label_space: K names.
        quantile: share of each class that is to fall below its threshold, in [0, 1).
        window: confidences of each class that are looked back at, at least 1.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, label_space: tuple[str, ...], quantile: float, window: int = 256) -> None:
        if not 0 <= quantile < 1 or window < 1:
            raise ValueError(
                f"class thresholds: found quantile {quantile}, window {window}, expected [0, 1) and at least 1"
            )
        self.label_space, self.quantile, self.window = label_space, quantile, window
        self._recent: dict[str, deque[float]] = {}

    @property
    def values(self) -> dict[str, float]:
        """Class → threshold, of the classes that were seen."""
        found = {}
        for name, recent in self._recent.items():
            rank = int(self.quantile * (len(recent) + 1) + 1e-9)
            found[name] = sorted(recent)[rank - 1] if rank else 0.0
        return found

    def update(self, label: Tensor, confidence: Tensor) -> None:
        """Takes in one batch: int64 (n,) and float (n,)."""
        for index, value in zip(label.tolist(), confidence.tolist(), strict=True):
            self._recent.setdefault(self.label_space[index], deque(maxlen=self.window)).append(value)

    def of(self, label: Tensor) -> Tensor:
        """Returns the threshold of each face's class, float (n,)."""
        values = self.values
        return torch.tensor([values.get(name, 0.0) for name in self.label_space], device=label.device)[label]

    def state_dict(self) -> dict[str, Any]:
        """Returns the last confidences by name."""
        return {"recent": {name: list(recent) for name, recent in self._recent.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over stored confidences; of a state from before there were any, none."""
        recent = state.get("recent", {})
        self._recent = {str(name): deque(map(float, values), maxlen=self.window) for name, values in recent.items()}
