"""Encoded pictures where they lie: in memory, in a file, in a part of one, in a data set of ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from datamodules.rows.images import BadImageError, decode_image, resize_square


class StoredImage(Protocol):
    """A picture that can be read."""

    def read(self) -> bytes | None:
        """Returns the content of its file; None where there is none.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """A picture that has been read already."""

    content: bytes | None

    def read(self) -> bytes | None:
        """Returns the content."""
        return self.content


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A picture that is a file."""

    path: Path

    def read(self) -> bytes:
        """Returns the content of the file."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class PartOfFile:
    """A picture that is a stretch of a file, as in an archive without compression."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Returns the stretch."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """A picture in a table of ``datasets``, whose image column is not decoded."""

    dataset: Any
    column: str
    row: int

    def read(self) -> bytes | None:
        """Returns its bytes, or the content of the file that it names."""
        cell = self.dataset[self.row][self.column]
        if cell is None or cell.get("bytes") is not None:
            return None if cell is None else cell["bytes"]  # type: ignore[no-any-return]
        return None if cell.get("path") is None else Path(cell["path"]).read_bytes()


def read_pixels(image: StoredImage, where: str) -> np.ndarray:
    """Returns uint8 (H, W) or (H, W, 3) of a stored picture.

    Raises:
        BadImageError: it cannot be read or decoded.
    """
    return read_and_decode(image.read, where)


def read_and_decode(read: Callable[[], bytes | None], where: str) -> np.ndarray:
    """Returns uint8 (H, W) or (H, W, 3) of the content that ``read`` gives.

    Raises:
        BadImageError: it cannot be read or decoded.
    """
    try:
        content = read()
    except OSError as error:
        reason = error.strerror or error
        raise BadImageError(f"{where}: cannot be read ({reason}), expected a readable image file") from error
    return decode_image(content, where)


class StoredImages:
    """An image source of stored pictures, read and decoded when asked for.

    Args:
        images: N pictures.
        places: N names, for errors.
        image_size: side in pixels to which they are cut and resized; None = all have one size.
    """

    def __init__(self, images: Sequence[StoredImage], places: Sequence[str], image_size: int | None = None) -> None:
        self.images, self.places, self.image_size = list(images), list(places), image_size

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 3, H, W), RGB, also of grey pictures: a set may hold both."""
        return stacked([read_pixels(self.images[row], self.places[row]) for row in rows.tolist()], self.image_size)

    def select(self, rows: np.ndarray) -> StoredImages:
        """Returns the images of these rows, in this order."""
        numbers = rows.tolist()
        return StoredImages([self.images[n] for n in numbers], [self.places[n] for n in numbers], self.image_size)


def stacked(pixels: list[np.ndarray], image_size: int | None) -> Tensor:
    """Returns uint8 (n, 3, H, W) of pictures of uint8 (H, W) or (H, W, 3), cut and resized where a side is given."""
    same = pixels if image_size is None else [resize_square(image, image_size) for image in pixels]
    rgb = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1) for image in same]
    return torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2).contiguous()
