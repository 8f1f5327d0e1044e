"""Frontal faces by OpenCV's cascade of boosted classifiers, whose weights lie in OpenCV's wheel."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from synfer.faces.face_detector import FaceBox
from synfer.foundation.optional_package import optional_package

CASCADE = "haarcascade_frontalface_alt2.xml"  # finds fewer faces where there are none than the default one
_LONGEST = 1280  # pixels; a larger picture is searched at this size
_SMALLEST = 0.04  # of the shorter side; smaller finds are mostly texture
_STEP, _NEIGHBOURS, _MIN_SIDE = 1.1, 5, 24


class HaarDetector:
    """Finds frontal faces (Viola and Jones, 2001; Lienhart and Maydt, 2002), upright, from about 24 pixels on.

    Fast on a CPU and without weights to fetch; faces from the side, turned or half covered are missed.

    Attributes:
        version: of OpenCV; another one may find others.

    Raises:
        ValueError: OpenCV is not installed, or without its cascades (version 5 has none).
    """

    def __init__(self) -> None:
        self._cv2 = optional_package("cv2", "faces", "--faces")
        file = Path(getattr(getattr(self._cv2, "data", None), "haarcascades", "")) / CASCADE
        if not file.is_file() or not hasattr(self._cv2, "CascadeClassifier"):
            raise ValueError(
                f"--faces: found OpenCV {self._cv2.__version__} without '{CASCADE}', expected opencv-python-headless "
                ">= 4.8 and < 5 (pip install 'synfer[faces]')"
            )
        self._file = str(file)
        self.version = str(self._cv2.__version__)
        self._of_thread = threading.local()

    def __call__(self, picture: np.ndarray) -> list[FaceBox]:
        """Returns the faces in a picture, the largest first, uint8 (H, W) or (H, W, 3) RGB."""
        cv2 = self._cv2
        height, width = picture.shape[:2]
        grey = picture if picture.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
        scale = min(1.0, _LONGEST / max(height, width))
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        smallest = max(_MIN_SIDE, round(_SMALLEST * min(grey.shape)))
        if min(grey.shape) < smallest:
            return []
        found = self._cascade().detectMultiScale(
            cv2.equalizeHist(np.ascontiguousarray(grey)),
            scaleFactor=_STEP,
            minNeighbors=_NEIGHBOURS,
            minSize=(smallest, smallest),
        )
        boxes = [
            FaceBox(
                int(x / scale), int(y / scale), min(width, round((x + w) / scale)), min(height, round((y + h) / scale))
            )
            for x, y, w, h in found
        ]
        return sorted(boxes, key=lambda box: ((box.x0 - box.x1) * (box.y1 - box.y0), box.y0, box.x0))

    def _cascade(self) -> Any:
        """Returns this thread's own cascade: one keeps what it is at work on in itself."""
        if not hasattr(self._of_thread, "cascade"):
            self._of_thread.cascade = self._cv2.CascadeClassifier(self._file)
        return self._of_thread.cascade
