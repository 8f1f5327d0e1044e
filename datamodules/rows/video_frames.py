"""The frames of a video file or of a camera, by OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from datamodules.rows.images import BadImageError
from synfer.foundation.optional_package import optional_package

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"})
CAMERA = "camera:"
"""What a camera's name begins with; its number follows."""


def video_frames(name: str, every: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Yields number (from 0) and picture (uint8 (H, W, 3), RGB, upright) of each ``every``-th frame.

    Args:
        name: path of a video, or "camera:0"; a camera's frames have no end.
        every: how many frames from one that is looked at to the next, ≥ 1.

    Raises:
        ValueError: no OpenCV, no such camera, or a camera's name without a number.
        BadImageError: nothing in it can be decoded, or only the beginning; that has been yielded by then.
    """
    is_camera = name.startswith(CAMERA)
    number = name.removeprefix(CAMERA)
    if is_camera and not number.isdigit():
        raise ValueError(f"'{name}': found no camera's number, expected camera:0, camera:1, …")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # we say ourselves what is wrong with a file
    cv2 = optional_package("cv2", "faces", f"'{name}'")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(int(number)) if is_camera else cv2.VideoCapture(name)
    try:
        if not capture.isOpened():
            if is_camera:
                raise ValueError(f"'{name}': found no camera of this number, or one in use, expected one that opens")
            raise BadImageError(f"{name}: found no video that can be opened, expected a whole video file")
        promised = 0 if is_camera else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frame = 0
        while capture.grab():
            if frame % every == 0:
                whole, picture = capture.retrieve()
                if not whole:
                    break
                yield frame, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            frame += 1
        if not frame:
            raise BadImageError(f"{name}: found no frame that can be decoded, expected a whole video")
        if frame < promised - max(2, promised // 100):  # containers count roughly
            raise BadImageError(f"{name}: found {frame} of {promised} frames, expected a whole video")
    finally:
        capture.release()
