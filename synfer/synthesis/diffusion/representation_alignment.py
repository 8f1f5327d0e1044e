"""A diffusion UNet's inner maps of a noisy face, drawn towards what a frozen network sees in the face without noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from synfer.foundation.validate import check_setting


@dataclass(frozen=True)
class AlignmentSettings:
    """What a generator's inner maps are aligned with (REPA; Yu et al. 2024, arXiv 2410.06940).

    Attributes:
        features: checkpoint, run folder or folder of a frozen network, or a folder in timm's layout; null = no
            alignment. Never the network that is to judge the faces: a test refuses it.
        weight: of the loss, above 0.
        layer: name of the UNet's module whose output, a map, is aligned.

    Raises:
        ValueError: a weight out of range.
    """

    features: str | None = None
    weight: float = 0.5
    layer: str = "mid_block"

    def __post_init__(self) -> None:
        check_setting(self.weight > 0, "alignment.weight", self.weight, "a number above 0")


class RepresentationAlignment(nn.Module):
    """Projects inner maps, place by place, and compares them with features by the cosine.

    It takes part in training alone.

    Args:
        channels: C of the inner maps.
        features: F of the features.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        width = max(channels, features)
        self.projection = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, features, 1),
        )

    def forward(self, inner: Tensor, features: Tensor) -> Tensor:
        """Returns 1 − cosine, the mean over faces and places: a scalar in [0, 2].

        Args:
            inner: (B, C, h, w).
            features: (B, F, h', w'), brought to the places of the inner maps.
        """
        projected = self.projection(inner).float()
        if features.shape[-2:] != projected.shape[-2:]:
            features = F.interpolate(features.float(), projected.shape[-2:], mode="bilinear", antialias=True)
        return 1 - F.cosine_similarity(projected, features.float(), dim=1).mean()
