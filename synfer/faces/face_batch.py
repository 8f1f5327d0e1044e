"""Whether a batch of faces is what a network takes: RGB or grey, floats in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

_SHAPE = "RGB images (B, 3, H, W), or grey ones (B, 1, H, W), float in [0, 1]"
_FAR = 0.5
"""So far outside of [0, 1] lies no face that a resampling or a generator has made, and every one in 0…255 or
normalised."""


def check_batch(image: Tensor) -> None:
    """Refuses images of whole numbers, which a network would take for faces 255 times as bright, or of another shape.

    Costs nothing: no pixel is looked at.

    Raises:
        ValueError: what was found, and what was expected.
    """
    if not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise ValueError(f"image: found {kind} {tuple(image.shape)}, expected {_SHAPE} (uint8 / 255)")
    if image.ndim != 4 or image.shape[1] not in (1, 3):
        raise ValueError(f"image: found the shape {tuple(image.shape)}, expected {_SHAPE}")


def check_range_of_batch(image: Tensor) -> None:
    """As :func:`check_batch`, and refuses pixels far outside of [0, 1] or NaN, on the CPU alone.

    Elsewhere the device would have to be waited for.

    Raises:
        ValueError: what was found, and what was expected.
    """
    check_batch(image)
    if image.device.type != "cpu" or not image.numel() or torch.compiler.is_compiling():
        return
    low, high = (float(value) for value in torch.aminmax(image.detach()))
    if not (low >= -_FAR and high <= 1 + _FAR):  # also true for NaN
        raise ValueError(
            f"image: found values from {low:.4g} to {high:.4g}, expected {_SHAPE} (0…255 / 255; not normalised, which "
            "the classifier does itself)"
        )
