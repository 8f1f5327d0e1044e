"""Temperature scaling: one number that makes a classifier's probabilities mean what they say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST, LARGEST = 0.05, 20.0
"""Temperatures that are ever fitted."""


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """Returns T > 0 that minimises the negative log-likelihood of softmax(logits / T) (Guo et al., ICML 2017).

    Fitted by L-BFGS on log T, which is convex enough to need no other choice. Works under inference mode.

    Args:
        logits: float (n, K).
        label: int64 (n,).

    Returns:
        T in [0.05, 20]; 1 where there is nothing to fit on.
    """
    if len(logits) == 0:
        return 1.0
    with torch.inference_mode(False), torch.enable_grad():
        # On the CPU, for MPS knows no float64; clones, for inference tensors cannot be differentiated through.
        fixed, target = logits.detach().clone().cpu().double(), label.clone().cpu()
        log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([log_t], lr=0.5, max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(fixed / log_t.clamp(-3.0, 3.0).exp(), target)
            loss.backward()
            return loss

        optimizer.step(closure)
        found = float(log_t.detach().clamp(-3.0, 3.0).exp())
    return min(max(found, SMALLEST), LARGEST) if found == found else 1.0
