"""Losses for data whose rare classes are few: what a sample costs if class c is its label, for every c.

Soft labels take the expectation (:func:`synfer.labels.soft_label_loss.expected_losses`), so that a one-hot label has
exactly the loss of the paper. All of them act in training alone: what a network is evaluated by, and what it predicts,
are its plain logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from synfer.foundation.validate import check_setting

LossName = Literal["cross_entropy", "logit_adjustment", "focal", "ldam"]


@dataclass(frozen=True)
class LossSettings:
    """Which loss a classifier is trained with.

    Attributes:
        kind: "cross_entropy"; "logit_adjustment" (Menon et al. 2021, arXiv 2007.07314); "focal" (Lin et al. 2017,
            arXiv 1708.02002); "ldam" (Cao et al. 2019, arXiv 1906.07413), which makes the last layer a cosine.
        tau: τ ≥ 0 of logit adjustment, the factor of the log prior.
        prior: of logit adjustment: "drawn", the shares of the labels in the training batches as sampler and synthetic
            faces make them; "per_source", those of the real samples for real ones and those of the synthetic samples
            for synthetic ones, because a network can tell them apart; or "real", those of the real training rows
            however often they are drawn.
        gamma: γ ≥ 0 of the focal loss; 0 is cross-entropy.
        max_margin: of LDAM, the margin of the rarest class, ≥ 0, between cosines.
        scale: of LDAM, > 0: logits are so many times the cosine, in evaluation too.
        beta: β in [0, 1) of ``class_weights: effective_number`` (Cui et al. 2019, arXiv 1901.05555).
        defer_from: share of the training, in [0, 1), after which ``class_weights`` count; before it all are 1
            (deferred re-weighting, Cao et al. 2019; 0.8 there). 0 = from the first step.
        smoothing: where the share ``label_smoothing`` of a label goes: "even", to all classes alike, or "rebalanced",
            to the other ones by inverse frequency (Zhang et al. 2023, arXiv 2310.19636).
        consistency: λ ≥ 0, weight of the difference between the attention to a face and to its mirror image, the
            classes weighed by inverse frequency (same paper). Above 0 a step costs twice as much. 0 = off.

    Raises:
        ValueError: a value out of range.
    """

    kind: LossName = "cross_entropy"
    tau: float = 1.0
    prior: Literal["drawn", "per_source", "real"] = "drawn"
    gamma: float = 2.0
    max_margin: float = 0.5
    scale: float = 30.0
    beta: float = 0.999
    defer_from: float = 0.0
    smoothing: Literal["even", "rebalanced"] = "even"
    consistency: float = 0.0

    def __post_init__(self) -> None:
        check_setting(self.kind in LOSSES, "loss.kind", f"'{self.kind}'", f"one of {', '.join(LOSSES)}")
        fine = self.prior in ("drawn", "per_source", "real")
        check_setting(fine, "loss.prior", f"'{self.prior}'", "drawn, per_source or real")
        fine = self.smoothing in ("even", "rebalanced")
        check_setting(fine, "loss.smoothing", f"'{self.smoothing}'", "even or rebalanced")
        for name in ("tau", "gamma", "max_margin", "consistency"):
            value = getattr(self, name)
            check_setting(0 <= value < float("inf"), f"loss.{name}", value, "a number ≥ 0")
        check_setting(0 < self.scale < float("inf"), "loss.scale", self.scale, "a number > 0")
        for name in ("beta", "defer_from"):
            value = getattr(self, name)
            check_setting(0 <= value < 1, f"loss.{name}", value, "a number in [0, 1)")

    @property
    def mines_knowledge(self) -> bool:
        """Whether rare classes are to be learned of from all faces (:mod:`synfer.labels.mined_knowledge`)."""
        return self.smoothing == "rebalanced" or self.consistency > 0


class ClassLosses(nn.Module, ABC):
    """Turns logits into the loss of each class.

    Its tensors move with the module and enter no checkpoint: they follow from the data.

    Args:
        settings: of the loss.
        num_classes: K.

    Attributes:
        needs: what it has to be told of the classes before training: their real training rows ("counts"), their share
            among the labels that are trained on ("prior"), or nothing (None).
    """

    needs: ClassVar[Literal["counts", "prior"] | None] = None

    def __init__(self, settings: LossSettings, num_classes: int) -> None:
        super().__init__()
        self.settings = settings

    def adapt(self, per_class: Tensor) -> None:
        """Takes over what it needs, (K,) or (2, K), real and synthetic samples apart; each row has more than zeros."""

    @abstractmethod
    def forward(self, logits: Tensor, is_synthetic: Tensor | None = None) -> Tensor:
        """Returns the loss of each class, (B, K).

        Args:
            logits: float (B, K).
            is_synthetic: bool (B,), where each sample comes from; None = all are real.
        """


class CrossEntropy(ClassLosses):
    """−log p_c."""

    def forward(self, logits: Tensor, is_synthetic: Tensor | None = None) -> Tensor:
        """Returns the loss of each class, (B, K)."""
        return -logits.log_softmax(1)


class LogitAdjustment(ClassLosses):
    """Cross-entropy of the logits plus τ · log prior, so that the plain logits favour no class for being frequent.

    Menon et al. 2021, arXiv 2007.07314, equation 10. A class that has no share is taken to have that of the rarest one
    that has: with log 0 it would never be pushed down, and could win every prediction.
    """

    needs = "prior"

    def __init__(self, settings: LossSettings, num_classes: int) -> None:
        super().__init__(settings, num_classes)
        self.register_buffer("offset", torch.zeros(2, num_classes), persistent=False)  # of real, of synthetic samples
        self.offset: Tensor

    def adapt(self, per_class: Tensor) -> None:
        """Takes over the prior, (K,) or (2, K)."""
        prior = per_class.double().expand(2, -1)
        rarest = torch.where(prior > 0, prior, torch.inf).min(1, keepdim=True).values
        self.offset.copy_(self.settings.tau * torch.where(prior > 0, prior, rarest).log())

    def forward(self, logits: Tensor, is_synthetic: Tensor | None = None) -> Tensor:
        """Returns the loss of each class, (B, K)."""
        offset = self.offset[0] if is_synthetic is None else self.offset[is_synthetic.long()]
        return -(logits + offset).log_softmax(1)


class Focal(ClassLosses):
    """−(1 − p_c)^γ · log p_c: what is certain already counts less.

    Lin et al. 2017, arXiv 1708.02002, equation 4, over the softmax in place of K sigmoids; its α are the class weights.
    """

    def forward(self, logits: Tensor, is_synthetic: Tensor | None = None) -> Tensor:
        """Returns the loss of each class, (B, K)."""
        log_p = logits.log_softmax(1)
        # 1 − p without cancellation, and never 0, where the slope of a power below 1 is not finite.
        return -((-torch.expm1(log_p)).clamp_min(1e-8) ** self.settings.gamma) * log_p


class LDAM(ClassLosses):
    """Cross-entropy after the label's own logit has been lowered by a margin, which is larger for rarer classes.

    Cao et al. 2019, arXiv 1906.07413: margins ∝ n^(−1/4), the largest ``max_margin``, between
    cosines that are scaled by ``scale`` (:class:`synfer.networks.normalised_head.NormalisedHead`). A class without a
    row has the margin of the rarest that has some.
    """

    needs = "counts"

    def __init__(self, settings: LossSettings, num_classes: int) -> None:
        super().__init__(settings, num_classes)
        self.register_buffer("margin", torch.zeros(num_classes), persistent=False)
        self.margin: Tensor

    def adapt(self, per_class: Tensor) -> None:
        """Takes over the real training rows per class, (K,)."""
        counts = per_class.double()
        fewest = counts[counts > 0].min()
        self.margin.copy_(self.settings.max_margin * (fewest / torch.where(counts > 0, counts, fewest)) ** 0.25)

    def forward(self, logits: Tensor, is_synthetic: Tensor | None = None) -> Tensor:
        """Returns the loss of each class, (B, K), of logits that are ``scale`` times a cosine."""
        # Row c of each sample's (K, K): the logits if c is the label.
        lowered = logits.unsqueeze(1) - (self.settings.scale * self.margin).diag()
        return -lowered.log_softmax(2).diagonal(dim1=1, dim2=2)


LOSSES: dict[str, type[ClassLosses]] = {
    "cross_entropy": CrossEntropy,
    "logit_adjustment": LogitAdjustment,
    "focal": Focal,
    "ldam": LDAM,
}
"""Name of ``model.loss.kind`` → its class."""


def check_together(loss: LossSettings, class_weights: list[float] | str | None, label_smoothing: float) -> None:
    """Checks ``model.loss`` beside ``model.class_weights`` and ``model.label_smoothing``.

    Raises:
        ValueError: weights by frequency beside logit adjustment, whose prior they would change, none to be deferred,
            attention maps of a cosine, or no smoothing to be rebalanced.
    """
    fine = loss.kind != "logit_adjustment" or not isinstance(class_weights, str)
    check_setting(fine, "class_weights", f"'{class_weights}'", "null beside model.loss.kind 'logit_adjustment'")
    fine = loss.defer_from == 0 or class_weights is not None
    check_setting(fine, "loss.defer_from", loss.defer_from, "0 without model.class_weights, which it defers")
    fine = loss.consistency == 0 or loss.kind != "ldam"
    check_setting(fine, "loss.consistency", loss.consistency, "0 beside 'ldam', whose logits are no sums over places")
    fine = loss.smoothing == "even" or label_smoothing > 0
    check_setting(fine, "loss.smoothing", f"'{loss.smoothing}'", "even without model.label_smoothing")
