"""The label vote of SynFER (arXiv 2410.09865): several classifiers decide what a synthetic face shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class VoteOutcome:
    """Result of a vote on n faces.

    Attributes:
        soft_label: float (n, K), rows sum to 1.
        agreed: bool (n,): more than half of the voters saw the intended expression.
        kept: bool (n,).
    """

    soft_label: Tensor
    agreed: Tensor
    kept: Tensor


def vote(probabilities: Tensor, intended: Tensor, soft: bool = True, discard_below: float = 0.0) -> VoteOutcome:
    """Votes on each face.

    Where more than half of the voters have the intended expression on top, the intended label stays, one-hot. Otherwise
    (a tie included) the label becomes the mean of the voters' probabilities.

    Args:
        probabilities: float (V, n, K), V ≥ 1 voters, rows sum to 1.
        intended: int64 (n,).
        soft: keep the mean as a soft label; False = its most probable class, one-hot (the first of equal ones).
        discard_below: faces are discarded whose mean probability of the final top class is smaller.

    Raises:
        ValueError: no voter.
    """
    if probabilities.ndim != 3 or len(probabilities) == 0:
        raise ValueError(f"label vote: found votes of shape {tuple(probabilities.shape)}, expected (V ≥ 1, n, K)")
    classes = probabilities.shape[2]
    mean = probabilities.mean(0)
    for_intended = (probabilities.argmax(2) == intended).sum(0)
    agreed = for_intended * 2 > len(probabilities)
    rectified = mean if soft else F.one_hot(mean.argmax(1), classes).to(mean.dtype)
    keep_label = F.one_hot(intended, classes).to(mean.dtype)
    soft_label = keep_label.where(agreed[:, None], rectified)
    confidence = mean.gather(1, soft_label.argmax(1, keepdim=True))[:, 0]
    return VoteOutcome(soft_label, agreed, confidence >= discard_below)
