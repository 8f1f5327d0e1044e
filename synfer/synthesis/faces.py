"""Finished faces, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.faces.expressions import map_label_space
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

    def in_label_space(self, label_space: tuple[str, ...]) -> Faces:
        """Returns the same faces with labels and votes by name in another label space.

        An expression that is not in it gives its share to the others.

        Args:
            label_space: names that hold every expression of the request.
        """
        if label_space == self.label_space:
            return self
        label = torch.from_numpy(map_label_space(label_space, self.label_space)).to(self.label.device)[self.label]
        intended = F.one_hot(label, len(label_space)).float()
        anyone = torch.full_like(intended, 1 / len(label_space))
        return replace(
            self,
            label=label,
            label_space=label_space,
            soft_label=_by_name(self.soft_label, self.label_space, label_space, intended),
            votes={n: _by_name(p, self.label_space, label_space, anyone) for n, p in self.votes.items()},
        )

    def __len__(self) -> int:
        return len(self.images)


def _by_name(shares: Tensor, source: Sequence[str], target: Sequence[str], otherwise: Tensor) -> Tensor:
    """Returns float32 (n, K of the target), rows that sum to 1, of shares (n, K of the source).

    Args:
        shares: rows that sum to 1.
        source: their names.
        target: names of the result.
        otherwise: rows where next to nothing falls on these names, (n, K of the target).
    """
    columns = map_label_space(source, target)
    known = torch.from_numpy(columns >= 0).to(shares.device)
    mapped = torch.where(known, shares[:, np.maximum(columns, 0)], 0.0)
    total = mapped.sum(1, keepdim=True)
    return torch.where(total > 1e-3, mapped / total.clamp_min(1e-12), otherwise.to(mapped))
