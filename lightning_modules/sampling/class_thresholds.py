"""A threshold of confidence for each class that follows how confident voters are about it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ClassThresholds:
    """Discards the weakest share of each class, whatever the class's own level of confidence.

    One fixed threshold empties the classes that voters find hard. As in dynamic thresholds for semi-supervised
    expression recognition (arXiv 2303.08617), every class has its own: the moving average of a quantile of the
    confidences seen for it. A class that was never seen has none (0).

    Args:
        label_space: K names.
        quantile: share of each class that is to fall below its threshold, in [0, 1).
        momentum: share of the old average that stays at each batch, in [0, 1).

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, label_space: tuple[str, ...], quantile: float, momentum: float = 0.9) -> None:
        if not 0 <= quantile < 1 or not 0 <= momentum < 1:
            raise ValueError(
                f"class thresholds: found quantile {quantile}, momentum {momentum}, expected both in [0, 1)"
            )
        self.label_space, self.quantile, self.momentum = label_space, quantile, momentum
        self.values: dict[str, float] = {}

    def update(self, label: Tensor, confidence: Tensor) -> None:
        """Takes in one batch: int64 (n,) and float (n,)."""
        for index in label.unique().tolist():
            found = float(torch.quantile(confidence[label == index].float(), self.quantile))
            name = self.label_space[index]
            old = self.values.get(name)
            self.values[name] = found if old is None else self.momentum * old + (1 - self.momentum) * found

    def of(self, label: Tensor) -> Tensor:
        """Returns the threshold of each face's class, float (n,)."""
        return torch.tensor([self.values.get(name, 0.0) for name in self.label_space], device=label.device)[label]

    def state_dict(self) -> dict[str, Any]:
        """Returns the thresholds by name."""
        return {"values": dict(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over stored thresholds."""
        self.values = {str(name): float(value) for name, value in state["values"].items()}
