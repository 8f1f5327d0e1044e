"""What a network from elsewhere needs before it sees a face: its own size and its own colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from synfer.faces.face_shape import resize_faces


class OnFaces(nn.Module):
    """A module that holds a network for images of one size, normalised in one way.

    A subclass holds the network and sets ``image_size``. ``mean`` and ``std`` are part of its state.

    Args:
        mean: per channel, for images in [0, 1]; one number means a network for grey images.
        std: likewise.
        resampling: how images of another size are brought to the network's.

    Attributes:
        image_size: side in pixels that the network works on.
    """

    image_size: int
    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], resampling: Literal["bilinear", "bicubic"] = "bilinear"
    ) -> None:
        super().__init__()
        self.resampling = resampling
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1))

    def prepare(self, image: Tensor) -> Tensor:
        """Returns images as the network takes them, (B, 1 or 3, side, side).

        Args:
            image: (B, 3, H, W), float in [0, 1]; the result is differentiable in them.
        """
        if self.mean.shape[1] == 1:
            image = image.mean(1, keepdim=True)
        if image.shape[-2:] != (self.image_size, self.image_size):
            image = resize_faces(image, self.image_size, self.resampling)
            if self.resampling == "bicubic":  # which overshoots
                image = image.clamp(0, 1)
        return (image - self.mean) / self.std
