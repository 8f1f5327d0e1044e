"""The loss of a network that learns from soft labels, some of them of synthetic faces."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_label_losses(
    logits: Tensor, soft_label: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Returns the cross-entropy of each sample, (B,).

    Args:
        logits: float (B, K).
        soft_label: float (B, K), rows sum to 1.
        label_smoothing: share of each label that is spread evenly over all classes, in [0, 1).
        class_weights: of the K classes; None = all 1.
    """
    return expected_losses(-logits.log_softmax(1), soft_label, label_smoothing, class_weights)


def expected_losses(
    class_losses: Tensor, soft_label: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Returns the loss of each sample under its soft label q, (B,): Σ q_c · w_c · loss_c.

    Args:
        class_losses: float (B, K): the loss of a sample if class c were its label.
        soft_label: float (B, K), rows sum to 1; a one-hot row picks the loss of its class.
        label_smoothing: share of each label that is spread evenly over all classes, in [0, 1).
        class_weights: of the K classes; None = all 1.
    """
    target = soft_label * (1 - label_smoothing) + label_smoothing / soft_label.shape[1]
    if class_weights is not None:
        target = target * class_weights
    return (target * class_losses).sum(1)


def weighted_by_origin(
    losses: Tensor, is_synthetic: Tensor, synthetic_weight: float, counted: Tensor | None = None
) -> Tensor:
    """Returns the mean of losses (B,) in which a synthetic sample weighs ``synthetic_weight`` and a real one 1.

    Args:
        losses: per sample.
        is_synthetic: bool (B,).
        synthetic_weight: at least 0.
        counted: bool (B,), which samples have a label to learn from; None = all.
    """
    weight = torch.where(is_synthetic, synthetic_weight, 1.0)
    if counted is not None:
        weight = weight * counted
    # A batch of nothing but synthetic samples with weight 0 teaches nothing, and must not divide by zero.
    return (losses * weight).sum() / weight.sum().clamp_min(1e-12)
