"""Whoever finds the faces in a picture: what it must be able to do, and which there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from synfer.foundation.late_import import imported_late

DETECTORS = {"haar": "synfer.faces.haar_detector:HaarDetector"}
"""Name → "module:class" of a :class:`FaceDetector`, imported when it is asked for: each needs an optional package."""


@dataclass(frozen=True)
class FaceBox:
    """Where a face lies in a picture, in pixels; x0 and y0 belong to it, x1 and y1 do not."""

    x0: int
    y0: int
    x1: int
    y1: int

    def cut_from(self, picture: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """Returns the part of a picture inside the box, (h, w) or (h, w, 3), a view.

        Args:
            picture: (H, W) or (H, W, 3).
            margin: how far beyond the box on each side, as a share of the box; it ends where the picture ends.
        """
        height, width = picture.shape[:2]
        more_x, more_y = round(margin * (self.x1 - self.x0)), round(margin * (self.y1 - self.y0))
        top, left = max(0, self.y0 - more_y), max(0, self.x0 - more_x)
        return picture[top : min(height, self.y1 + more_y), left : min(width, self.x1 + more_x)]


class FaceDetector(Protocol):
    """Finds faces; may be called from several threads at once.

    Attributes:
        version: of whatever finds them; another one may find others.
    """

    version: str

    def __call__(self, picture: np.ndarray) -> list[FaceBox]:
        """Returns the faces in a picture, the largest first, uint8 (H, W) or (H, W, 3) RGB."""
        ...


def load_detector(name: str) -> FaceDetector:
    """Returns a detector by its name in :data:`DETECTORS`.

    Raises:
        ValueError: there is none of that name, or its package is not installed.
    """
    if name not in DETECTORS:
        raise ValueError(f"--detector: found '{name}', expected one of {', '.join(DETECTORS)}")
    detector: FaceDetector = imported_late(DETECTORS[name])()
    return detector
