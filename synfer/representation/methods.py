"""Methods of pre-training: what each does with the views of a face, around a backbone that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from synfer.representation.heads import projection_head
from synfer.representation.losses import cosine_regression, momentum_contrast, nt_xent
from synfer.representation.masked_faces import MaskedFaces
from synfer.representation.momentum import follow, teacher_of

MethodName = Literal["simclr", "moco_v3", "byol", "mae"]

Draw = Callable[[int], Tensor]
"""Number of columns → random numbers in [0, 1) for each face of the batch, (B, columns)."""


@dataclass(frozen=True)
class HeadSettings:
    """The perceptrons of SimCLR, MoCo v3 and BYOL.

    Args:
        hidden: width between their layers.
        out: width of the embedding.
        layers: linear layers of the projection: 2 in SimCLR and BYOL, 3 in MoCo v3.
        predictor_layers: linear layers of the prediction from the projection, in MoCo v3 and BYOL.

    Raises:
        ValueError: a number below 1.
    """

    hidden: int = 512
    out: int = 128
    layers: int = 2
    predictor_layers: int = 2

    def __post_init__(self) -> None:
        for name in ("hidden", "out", "layers", "predictor_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.head.{name}: found {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True)
class DecoderSettings:
    """The decoder of MAE.

    Args:
        width: of its tokens.
        depth: its blocks.
        num_heads: of its attention; divides ``width``.
        hidden_share: share of the patches that the network does not see, in (0, 1).
        normalise: whether each patch is drawn with mean 0 and variance 1.

    Raises:
        ValueError: a value out of range.
    """

    width: int = 128
    depth: int = 2
    num_heads: int = 4
    hidden_share: float = 0.75
    normalise: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.decoder.{name}: found {getattr(self, name)}, expected at least 1")
        if self.width % self.num_heads:
            raise ValueError(
                f"model.decoder.num_heads: found {self.num_heads}, expected a divisor of the width {self.width}"
            )
        if not 0 < self.hidden_share < 1:
            raise ValueError(f"model.decoder.hidden_share: found {self.hidden_share}, expected a number in (0, 1)")


class Method(nn.Module, ABC):
    """What is around the backbone in a pre-training, and thrown away after it.

    Attributes:
        num_views: views of each face that :meth:`loss` takes.
        has_teacher: whether a moving average of the backbone takes part.
    """

    num_views = 2
    has_teacher = False

    @abstractmethod
    def loss(self, backbone: nn.Module, views: Sequence[Tensor], draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the loss, and embeddings (B, D) that show whether the network has collapsed.

        Args:
            backbone: images (B, C, H, W) → features (B, F).
            views: ``num_views`` of them, normalised.
            draw: random numbers for each face.
        """

    def follow(self, backbone: nn.Module, momentum: float) -> None:
        """Moves the teacher, where there is one, towards the backbone; after each optimiser step.

        Args:
            backbone: that learns.
            momentum: share of the teacher that stays.
        """


class SimCLR(Method):
    """Two views of a face are to be more alike than two faces (Chen et al. 2020, arXiv 2002.05709).

    Args:
        features: width of the backbone's features.
        head: the projection.
        temperature: τ of NT-Xent.
    """

    def __init__(self, features: int, head: HeadSettings, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.projector = projection_head(features, head.hidden, head.out, head.layers, last_norm=True)

    def loss(self, backbone: nn.Module, views: Sequence[Tensor], draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns NT-Xent of both views' projections, and the projections of the first."""
        first, second = self.projector(backbone(torch.cat(list(views)))).chunk(2)
        return nt_xent(first, second, self.temperature), first


class _WithTeacher(Method):
    """A method whose targets come from the moving average of backbone and projection."""

    has_teacher = True

    def __init__(self, backbone: nn.Module, features: int, head: HeadSettings, last_norm: bool) -> None:
        super().__init__()
        self.projector = projection_head(features, head.hidden, head.out, head.layers, last_norm)
        self.predictor = projection_head(head.out, head.hidden, head.out, head.predictor_layers, last_norm)
        self.teacher = teacher_of(nn.ModuleDict({"backbone": backbone, "projector": self.projector}))

    def _targets(self, view: Tensor) -> Tensor:
        with torch.no_grad():
            made: Tensor = self.teacher.projector(self.teacher.backbone(view))  # type: ignore[operator]
            return made

    def follow(self, backbone: nn.Module, momentum: float) -> None:
        follow(self.teacher, nn.ModuleDict({"backbone": backbone, "projector": self.projector}), momentum)


class MoCoV3(_WithTeacher):
    """A view is to name its own face among those of the batch, by the teacher's keys (arXiv 2104.02057).

    Args:
        backbone: that learns; the teacher begins as its copy.
        features: width of its features.
        head: projection and prediction.
        temperature: τ.
    """

    def __init__(self, backbone: nn.Module, features: int, head: HeadSettings, temperature: float) -> None:
        super().__init__(backbone, features, head, last_norm=True)
        self.temperature = temperature

    def loss(self, backbone: nn.Module, views: Sequence[Tensor], draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the contrast of each view with the other's keys, summed, and the projections of the first."""
        keys = [self._targets(view) for view in views]
        projections = [self.projector(backbone(view)) for view in views]
        first, second = (self.predictor(projection) for projection in projections)
        loss = momentum_contrast(first, keys[1], self.temperature)
        return loss + momentum_contrast(second, keys[0], self.temperature), projections[0]


class BYOL(_WithTeacher):
    """A view is to foretell what the teacher makes of the other one; no negatives (arXiv 2006.07733).

    Args:
        backbone: that learns; the teacher begins as its copy.
        features: width of its features.
        head: projection and prediction.
    """

    def __init__(self, backbone: nn.Module, features: int, head: HeadSettings) -> None:
        super().__init__(backbone, features, head, last_norm=False)

    def loss(self, backbone: nn.Module, views: Sequence[Tensor], draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the regression of each view on the other's target, summed, and the projections of the first."""
        targets = [self._targets(view) for view in views]
        projections = [self.projector(backbone(view)) for view in views]
        first, second = (self.predictor(projection) for projection in projections)
        return cosine_regression(first, targets[1]) + cosine_regression(second, targets[0]), projections[0]


class MAE(Method):
    """A ViT that sees a quarter of the patches is to know the others (arXiv 2111.06377).

    Args:
        decoder: behind the ViT.
    """

    num_views = 1

    def __init__(self, decoder: MaskedFaces) -> None:
        super().__init__()
        self.decoder = decoder

    def loss(self, backbone: nn.Module, views: Sequence[Tensor], draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the error over hidden patches, and the mean features of the seen ones."""
        numbers = draw(self.decoder.num_patches).to(views[0].device)
        return self.decoder.loss(backbone, views[0], numbers)
