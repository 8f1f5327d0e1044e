"""A frozen classifier of expressions as a loss: what it sees in a face, with gradient to the face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from synfer.faces.expressions import map_label_space
from synfer.faces.face_shape import resize_faces


class PixelClassifier(Protocol):
    """A classifier of pictures made of a timm network."""

    label_space: tuple[str, ...]
    backbone: nn.Module
    image_size: int
    in_channels: int
    mean: Tensor
    std: Tensor

    @property
    def codec(self) -> Any:
        """None: it reads pixels."""

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits over its weights."""

    def to(self, device: Any) -> Any:
        """Moves it to a device."""


class ExpressionPerception:
    """Logits and feature maps of a classifier, for faces as a VAE-GAN's networks take them.

    Args:
        classifier: in evaluation mode, without gradients of its own.
        label_space: names of the K logits; the classifier may know more.
        name: of the setting that it comes from, for errors.

    Raises:
        ValueError: an expression that it does not know, latents in place of pixels, or a network without feature maps.
    """

    def __init__(self, classifier: PixelClassifier, label_space: Sequence[str], name: str = "model.guide") -> None:
        if classifier.codec is not None:
            raise ValueError(f"{name}: found a classifier of latents, expected one of pixels")
        columns = map_label_space(classifier.label_space, label_space)
        missing = [wanted for wanted, column in zip(label_space, columns, strict=True) if column < 0]
        if missing:
            raise ValueError(
                f"{name}: found a classifier of {', '.join(classifier.label_space)}, expected one that knows "
                f"'{missing[0]}'"
            )
        if not hasattr(classifier.backbone, "forward_intermediates"):
            raise ValueError(
                f"{name}: found a {type(classifier.backbone).__name__}, which gives no feature maps, expected a timm "
                "network with forward_intermediates"
            )
        self.classifier = classifier
        self._columns = torch.from_numpy(columns)

    def fingerprint(self) -> str:
        """Returns 16 hex digits over the classifier's weights."""
        return self.classifier.weights_fingerprint()

    def __call__(self, face: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns what the classifier sees in faces.

        Args:
            face: (B, 1 or 3, H, W), about [−1, 1].

        Returns:
            Logits (B, K) in the label space, and the feature maps of its stages but the first, (B, C, h, w) each.
        """
        network = self.classifier.to(face.device)
        picture = resize_faces(face / 2 + 0.5, network.image_size)
        if network.in_channels == 1:
            picture = picture.mean(1, keepdim=True)
        picture = (picture.expand(-1, network.in_channels, -1, -1) - network.mean) / network.std
        last, maps = network.backbone.forward_intermediates(picture.contiguous(memory_format=torch.channels_last))
        logits = network.backbone.forward_head(last)
        return logits[:, self._columns.to(face.device)], [stage for stage in maps if stage.ndim == 4][1:]
