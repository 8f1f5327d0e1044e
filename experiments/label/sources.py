"""What the paths of a command line lead to: image files, videos and cameras, and a picture after the other of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.rows.image_files import find_images, image_suffixes
from datamodules.rows.images import BadImageError, read_image
from datamodules.rows.video_frames import CAMERA, VIDEO_SUFFIXES, video_frames
from synfer.foundation.optional_package import optional_package


@dataclass(frozen=True)
class Picture:
    """One picture to look at.

    Attributes:
        path: file or camera, as it was given.
        frame: of a video or camera, from 0; None = an image file.
        read: returns uint8 (H, W) or (H, W, 3), or raises a ``BadImageError``.
    """

    path: str
    frame: int | None
    read: Callable[[], np.ndarray]


@dataclass
class Sources:
    """What was found.

    Attributes:
        names: image files, videos and cameras, in order.
        left_out: a line for each reason why other files are not looked at.
    """

    names: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def moving(self) -> bool:
        """Whether there is a video or a camera among them, whose frames nobody has counted."""
        return any(_is_moving(name) for name in self.names)

    def pictures(self, every: int = 1, max_frames: int | None = None) -> Iterator[Picture]:
        """Yields the pictures one after the other.

        Args:
            every: of videos and cameras, each so many-th frame.
            max_frames: of each video or camera, at most so many of these; None = all.
        """
        for name in self.names:
            if not _is_moving(name):
                yield Picture(name, None, partial(read_image, Path(name)))
                continue
            frames = video_frames(name, every)
            try:
                for count, (frame, pixels) in enumerate(frames, start=1):
                    yield Picture(name, frame, partial(_as_it_is, pixels))
                    if count == max_frames:
                        break
            except BadImageError as error:
                yield Picture(name, None, partial(_raise, error))
            finally:
                frames.close()  # type: ignore[attr-defined]


def find_sources(paths: Sequence[str]) -> Sources:
    """Finds what there is to look at; a folder means the images anywhere below it, and each file counts once.

    Raises:
        FileNotFoundError: nothing at a path.
        ValueError: a file that is neither image nor video, a folder without an image, or a video without OpenCV.
    """
    found = Sources()
    for given in paths:
        path = Path(given)
        if given.startswith(CAMERA):
            if not given.removeprefix(CAMERA).isdigit():
                raise ValueError(f"'{given}': found no camera's number, expected camera:0, camera:1, …")
            found.names.append(given)
        elif path.is_dir():
            _add_folder(path, found)
        elif not path.exists():
            raise FileNotFoundError(f"'{given}': found nothing there, expected an image, a folder, a video or camera:0")
        elif path.suffix.lower() in VIDEO_SUFFIXES | image_suffixes():
            found.names.append(given)
        else:
            raise ValueError(
                f"'{given}': found neither image nor video, by its suffix '{path.suffix}', expected an image (.jpg, "
                ".png, …), a video (.mp4, …), a folder or camera:0"
            )
    moving = next((name for name in found.names if _is_moving(name)), None)
    if moving is not None:
        optional_package("cv2", "faces", f"'{moving}'")
    once: dict[Path, str] = {}
    for name in found.names:
        once.setdefault(Path(name).absolute(), name)
    if len(once) < len(found.names):
        found.left_out.append(f"{len(found.names) - len(once)} files that were given twice")
    found.names = list(once.values())
    return found


def _add_folder(folder: Path, found: Sources) -> None:
    files = find_images(folder)
    reasons = [f"{count} in '{folder}': {why}" for why, count in files.reasons(folder).items()]
    if not files.images[folder]:
        others = f" ({'; '.join(reasons)})" if reasons else " (it is empty)"
        raise ValueError(f"'{folder}': found no image in this folder{others}, expected at least one")
    found.names += [str(path) for path in files.images[folder]]
    found.left_out += reasons


def _is_moving(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return name.startswith(CAMERA) or (suffix in VIDEO_SUFFIXES and suffix not in image_suffixes())


def _as_it_is(pixels: np.ndarray) -> np.ndarray:
    return pixels


def _raise(error: BadImageError) -> np.ndarray:
    raise error
