"""Pictures of a set that is larger than the disk: read in the order of their parts, kept for a while, never stored."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from datamodules.captions.stored_image import StoredImage, StoredImages, read_pixels, stacked
from datamodules.rows.images import BadImageError


@dataclass(frozen=True)
class StreamSettings:
    """How the rows of a stream are drawn.

    Attributes:
        shuffle_buffer: within so many rows of a lane their order is random.
        lanes: places at which each rank reads side by side; as many as its loader processes, so that each has its own.
        skip_bad: whether another row of the batch stands in for a picture that cannot be decoded, with a warning.
    """

    shuffle_buffer: int
    lanes: int
    skip_bad: bool


class StreamedImages(StoredImages):
    """Stored pictures with the part of the set in which each lies; the sampler draws part after part.

    Args:
        images: N pictures.
        places: N names, for errors.
        image_size: side in pixels to which they are cut and resized.
        parts: int64 (N,), the file, or row group of one, that a picture is read with.
        settings: how rows are drawn.
    """

    def __init__(
        self,
        images: Sequence[StoredImage],
        places: Sequence[str],
        image_size: int | None,
        parts: np.ndarray,
        settings: StreamSettings,
    ) -> None:
        super().__init__(images, places, image_size)
        self.parts, self.settings = parts, settings

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 3, H, W), RGB.

        Raises:
            BadImageError: a picture cannot be used; where bad ones are skipped, none can.
        """
        if not self.settings.skip_bad:
            return super().batch(rows)
        pixels: list[np.ndarray | None] = []
        said = ""
        for row in rows.tolist():
            try:
                pixels.append(read_pixels(self.images[row], self.places[row]))
            except BadImageError as error:
                pixels.append(None)
                said = str(error)
                warnings.warn(f"{said}; another picture of the batch stands in for it", stacklevel=2)
        good = [image for image in pixels if image is not None]
        if not good:
            raise BadImageError(f"{said} (and {len(pixels) - 1} more: no picture of the batch is good)")
        filled = [good[n % len(good)] if image is None else image for n, image in enumerate(pixels)]
        return stacked(filled, self.image_size)

    def select(self, rows: np.ndarray) -> StreamedImages:
        """Returns the images of these rows, in this order."""
        some = super().select(rows)
        return StreamedImages(some.images, some.places, self.image_size, self.parts[rows], self.settings)
