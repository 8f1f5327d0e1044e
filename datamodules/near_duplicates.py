"""Faces that are nearly the same picture: other copies and crops of one photograph, which no hash of pixels finds."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.sample_table import ImageSource

THUMBNAIL = 16
_ROWS = 512
"""Images at a time."""


def near_twins(images: ImageSource, others: ImageSource, above: float) -> tuple[np.ndarray, np.ndarray]:
    """Finds the images that have a near twin among others, mirrored ones included.

    Two images are near twins where their grey thumbnails (16×16, area-averaged) correlate by more than ``above`` over
    their 256 pixels. Brightness and contrast do not matter.

    Args:
        images: N images.
        others: M images.
        above: correlation in (0, 1).

    Returns:
        Which images have a near twin among the others, bool (N,); which of the others have one among the images, (M,).
    """
    thumbnails = _thumbnails(images)
    of_images, of_others = torch.zeros(len(images), dtype=torch.bool), torch.zeros(len(others), dtype=torch.bool)
    parts = _thumbnails(others)
    for start in range(0, len(others), _ROWS):
        part = parts[start : start + _ROWS]
        upright = part.view(-1, THUMBNAIL, THUMBNAIL)
        for faces in (upright, upright.flip(-1)):
            close = faces.flatten(1) @ thumbnails.T > above
            of_images |= close.any(0)
            of_others[start : start + len(part)] |= close.any(1)
    return of_images.numpy(), of_others.numpy()


def _thumbnails(images: ImageSource) -> Tensor:
    """Returns grey thumbnails without mean, of length 1, float32 (N, 256); of a constant image all zeros."""
    found = []
    for start in range(0, len(images), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(images)))
        grey = images.batch(rows).float().mean(1, keepdim=True)
        flat = F.interpolate(grey, (THUMBNAIL, THUMBNAIL), mode="area").flatten(1)
        found.append(F.normalize(flat - flat.mean(1, keepdim=True), dim=1))
    return torch.cat(found) if found else torch.zeros(0, THUMBNAIL**2)
