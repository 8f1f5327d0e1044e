"""Faces that are nearly the same picture: other copies and crops of one photograph, which no hash of pixels finds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.rows.sample_table import ImageSource
from synfer.faces.face_shape import cut_faces

THUMBNAIL = 16
_ROWS = 512
"""Images at a time."""


def thumbnails(images: ImageSource) -> Tensor:
    """Returns grey thumbnails (16×16, area-averaged) of the central squares, without mean, of length 1.

    Float32 (N, 256). Brightness and contrast of an image do not matter; a constant one gives zeros, which are near to
    nothing.
    """
    found = [torch.zeros(0, THUMBNAIL**2)]
    for start in range(0, len(images), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(images)))
        grey = images.batch(rows).float().mean(1, keepdim=True)
        flat = F.interpolate(cut_faces(grey), (THUMBNAIL, THUMBNAIL), mode="area").flatten(1)
        found.append(F.normalize(flat - flat.mean(1, keepdim=True), dim=1))
    return torch.cat(found)


def find_near_duplicates(images: Tensor, others: Tensor, above: float) -> tuple[np.ndarray, np.ndarray]:
    """Finds the images that have a near duplicate among others, mirrored ones included.

    Args:
        images: :func:`thumbnails` of N images.
        others: those of M images.
        above: correlation of two thumbnails, in (0, 1), above which their images are near duplicates.

    Returns:
        Which images have a near duplicate among the others, bool (N,); and which of the others have one, (M,).
    """
    of_images, of_others = torch.zeros(len(images), dtype=torch.bool), torch.zeros(len(others), dtype=torch.bool)
    mirrored = others.unflatten(1, (THUMBNAIL, THUMBNAIL)).flip(-1).flatten(1)
    for start in range(0, len(others), _ROWS):
        rows = slice(start, start + _ROWS)
        for faces in (others[rows], mirrored[rows]):
            close = faces @ images.T > above
            of_images |= close.any(0)
            of_others[rows] |= close.any(1)
    return of_images.numpy(), of_others.numpy()
