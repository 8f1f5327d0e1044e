"""Finished faces, whoever made them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.synthesis.request import SynthesisRequest


@dataclass
class Faces:
    """n finished faces; hooks may change what is said about them, not the images.

    Attributes:
        request: what was asked.
        images: uint8 (n, 3, H, W), RGB.
        label: int64 (n,): intended expression, in the label space of the synthesiser.
        label_space: its K names.
        soft_label: float32 (n, K): final label; one-hot of the intended one unless a pseudo-labeller softened it.
        kept: bool (n,): False = discarded by a pseudo-labeller, or as a copy of its layout source.
        layout_source: n sample ids of the real faces whose layout was taken; "" = none.
        votes: name of the voter → float32 (n, K) probabilities.
        number_format: what the synthesiser ran its networks in; who looks at the faces may do alike.
    """

    request: SynthesisRequest
    images: Tensor
    label: Tensor
    label_space: tuple[str, ...]
    soft_label: Tensor
    kept: Tensor
    layout_source: list[str]
    votes: dict[str, Tensor] = field(default_factory=dict)
    number_format: torch.dtype = torch.float32

    @classmethod
    def as_asked(
        cls,
        request: SynthesisRequest,
        images: Tensor,
        label_space: tuple[str, ...],
        number_format: torch.dtype = torch.float32,
    ) -> Faces:
        """Returns faces about which nobody has said anything yet: all kept, each with the label that was asked.

        Args:
            request: what was asked.
            images: uint8 (n, 3, H, W), RGB.
            label_space: names that hold every expression of the request.
            number_format: what the synthesiser ran its networks in.
        """
        label = torch.tensor([label_space.index(name) for name in request.expressions], device=images.device)
        return cls(
            request,
            images,
            label,
            label_space,
            soft_label=F.one_hot(label, len(label_space)).float(),
            kept=torch.ones(len(request), dtype=torch.bool, device=images.device),
            layout_source=[""] * len(request),
            number_format=number_format,
        )

    def __len__(self) -> int:
        return len(self.images)
