"""The loss of a network that rates valence and arousal, of faces of which some are not rated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from synfer.foundation.validate import check_setting

AffectLossName = Literal["ccc", "mse", "ccc_mse"]

_FLOOR = 1e-8  # of a variance: what is constant in a batch must not divide by zero


@dataclass(frozen=True)
class AffectSettings:
    """Whether a classifier rates valence and arousal as well, and how it learns to.

    Attributes:
        enabled: whether there are two more outputs, valence and arousal in [-1, 1], beside the expressions.
        loss: "ccc", 1 − the concordance correlation of a batch (Lin 1989, Biometrics 45, 255-268; as a loss of valence
            and arousal Kollias and Zafeiriou 2019, arXiv 1910.04855); "mse", the squared error (Mollahosseini et al.
            2017, arXiv 1708.03985); "ccc_mse", the sum of both. CCC needs batches of some dozens of faces of all kinds:
            it compares the spread of a batch, and under several ranks of each rank's batch alone.
        weight: of this loss beside that of the expressions, > 0.
        alone: whether nothing else is learned: no expression is named, trained or scored.

    Raises:
        ValueError: a value out of range.
    """

    enabled: bool = False
    loss: AffectLossName = "ccc"
    weight: float = 1.0
    alone: bool = False

    def __post_init__(self) -> None:
        check_setting(self.loss in AFFECT_LOSSES, "affect.loss", f"'{self.loss}'", f"one of {', '.join(AFFECT_LOSSES)}")
        check_setting(0 < self.weight < float("inf"), "affect.weight", self.weight, "a number > 0")
        check_setting(self.enabled or not self.alone, "affect.alone", self.alone, "false without model.affect.enabled")


def squared_errors(rated: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Returns the weighted mean of the squared errors of valence and of arousal, (2,); 0 where nobody is rated.

    Args:
        rated: by the network, float (B, 2).
        truth: float (B, 2), finite also where the weight is 0.
        weight: (B, 2), ≥ 0; 0 = not known.
    """
    return (weight * (rated - truth).square()).sum(0) / weight.sum(0).clamp_min(_FLOOR)


def concordance_losses(rated: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Returns 1 − CCC of valence and of arousal over a batch, (2,), in [0, 2].

    CCC = 2·cov / (var + var + (difference of the means)²) with weighted moments (divided by the sum of the weights, as
    in Lin 1989). Of fewer than two known faces it is 0 and teaches nothing; where all are rated alike by both sides it
    is 1 at equal means, and its slope is finite.

    Args:
        rated: by the network, float (B, 2).
        truth: float (B, 2), finite also where the weight is 0.
        weight: (B, 2), ≥ 0; 0 = not known.
    """
    total = weight.sum(0).clamp_min(_FLOOR)
    means = [(weight * values).sum(0) / total for values in (rated, truth)]
    apart = [values - mean for values, mean in zip((rated, truth), means, strict=True)]
    covariance = (weight * apart[0] * apart[1]).sum(0) / total
    spread = (weight * (apart[0].square() + apart[1].square())).sum(0) / total
    losses = 1 - 2 * covariance / (spread + (means[0] - means[1]).square() + _FLOOR)
    return torch.where((weight > 0).sum(0) > 1, losses, torch.zeros_like(losses))


AFFECT_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...]] = {
    "ccc": (concordance_losses,),
    "mse": (squared_errors,),
    "ccc_mse": (concordance_losses, squared_errors),
}
"""Name of ``model.affect.loss`` → what is summed."""


def affect_loss(
    rated: Tensor, affect: Tensor, is_synthetic: Tensor, settings: AffectSettings, synthetic_weight: float = 1.0
) -> Tensor:
    """Returns the loss of one batch, a scalar: the mean over valence and arousal, 0 where nobody is rated.

    Args:
        rated: by the network, float (B, 2) in [-1, 1].
        affect: the truth, float (B, 2), NaN where it is not known: that number teaches nothing, and is never taken for
            0.
        is_synthetic: bool (B,).
        settings: which loss.
        synthetic_weight: what a synthetic face counts, a real one counting 1, ≥ 0.
    """
    known = ~affect.isnan()
    weight = known * torch.where(is_synthetic, synthetic_weight, 1.0)[:, None]
    truth = affect.nan_to_num(nan=0.0).float()
    losses = torch.stack([loss(rated.float(), truth, weight) for loss in AFFECT_LOSSES[settings.loss]]).sum(0)
    is_rated = (weight > 0).any(0)
    return (losses * is_rated).sum() / is_rated.sum().clamp_min(1)
