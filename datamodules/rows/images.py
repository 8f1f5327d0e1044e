"""Decoding images, with errors that name the file, and images that are read when asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageOps
from torch import Tensor

from synfer.faces.face_shape import central_part
from synfer.foundation.file_reading import one_line

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a face in pixels; right and bottom lie outside."""


class BadImageError(ValueError):
    """An image that cannot be used: one line with where, found and expected."""


def decode_image(data: bytes | None, where: str, size: int | tuple[int, int] | None = None) -> np.ndarray:
    """Decodes one image file held in memory.

    It stands upright as its EXIF orientation says; of 16 bits the upper eight are kept; transparent pixels are laid on
    black, whatever colour is stored beneath them; of an animation the first picture is taken.

    Args:
        data: content of an image file that Pillow can open.
        where: file or row, for the error.
        size: expected (height, width), or one number for a square; None accepts any.

    Returns:
        uint8 (H, W) for a grey file, (H, W, 3) RGB otherwise.

    Raises:
        BadImageError: no data, truncated, not an image, pixels of floats or 32-bit integers, or another size.
    """
    if not data:
        raise BadImageError(f"{where}: found no image data, expected an image file")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            _check_promised(opened)
            opened.load()
            array = image_array(opened)
    except Exception as error:  # each decoder of Pillow raises what it likes for a damaged file
        what = "no known image format" if isinstance(error, Image.UnidentifiedImageError) else one_line(error)
        raise BadImageError(
            f"{where}: found {len(data)} bytes that cannot be decoded ({what}), expected a whole image file"
        ) from error
    if size is not None:
        expected = (size, size) if isinstance(size, int) else size
        if array.shape[:2] != expected:
            height, width = array.shape[:2]
            raise BadImageError(f"{where}: found {height}x{width} pixels, expected {expected[0]}x{expected[1]}")
    return array


def read_image(path: Path, size: int | tuple[int, int] | None = None) -> np.ndarray:
    """Reads and decodes one image file; see ``decode_image``.

    Raises:
        BadImageError: as ``decode_image``, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(
            f"{path}: cannot be read ({error.strerror or error}), expected a readable image file"
        ) from error
    return decode_image(data, str(path), size)


_MOST_PIXELS = 89_478_485
"""A picture that says it has more is not decoded; Pillow warns from this number on and refuses from twice as many."""


def _check_promised(image: Image.Image) -> None:
    """Refuses a file that would fill the memory, before any is taken.

    Raises:
        ValueError: more pixels than a photograph has.
    """
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, expected at most {_MOST_PIXELS:,}")


def image_array(image: Image.Image) -> np.ndarray:
    """Returns uint8 (H, W) or (H, W, 3), upright as the camera meant it; see ``decode_image``.

    Raises:
        ValueError: pixels of floats or 32-bit integers.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or (upright.mode == "I" and image.format in ("PNG", "PPM")):
        return (np.asarray(upright) >> 8).astype(np.uint8)
    if upright.mode in ("I", "F"):  # Pillow would cut them off at 255: a white picture
        kind = "32-bit integers" if upright.mode == "I" else "floating-point numbers"
        raise ValueError(f"pixels of {kind}, expected 8 or 16 bits")
    if upright.has_transparency_data:
        return _on_black(upright)
    if upright.mode not in ("L", "RGB"):
        upright = upright.convert("L" if upright.mode == "1" else "RGB")
    return np.array(upright)


def check_not_constant(image: np.ndarray, where: str) -> None:
    """Checks that an image shows something.

    Raises:
        BadImageError: every pixel is the same (a black image, most often).
    """
    # Nearly every image differs within its first row: look there before touching every pixel.
    if (image[0] == image[0, 0]).all() and (image == image[0, 0]).all():
        name = "a black image" if not image.any() else f"one colour only ({image[0, 0]})"
        raise BadImageError(f"{where}: found {name}, expected a face")


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Cuts the central square and resizes it (bilinear, antialiased).

    Args:
        image: uint8 (H, W) or (H, W, 3).
        size: side in pixels.

    Returns:
        uint8 (size, size) or (size, size, 3).
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    crop = Image.fromarray(np.ascontiguousarray(image[central_part(height, width, (size, size))]))
    return np.array(crop.resize((size, size), Image.Resampling.BILINEAR))


def cut_out(image: np.ndarray, box: Box, where: str) -> np.ndarray:
    """Returns the part of a picture in a box; what lies outside the picture is left away.

    Raises:
        BadImageError: nothing is left.
    """
    left, top, right, bottom = box
    height, width = image.shape[:2]
    part = image[max(0, top) : max(0, min(bottom, height)), max(0, left) : max(0, min(right, width))]
    if 0 in part.shape:
        raise BadImageError(f"{where}: found the box {box} in a picture of {width}x{height}, expected one inside it")
    return part


class EncodedImages:
    """Images held as encoded files in memory, decoded when asked for.

    Args:
        data: N encoded images.
        names: N file or row names, for errors.
        image_size: side in pixels to which images are cut and resized; None = all have the same size already.
    """

    def __init__(self, data: Sequence[bytes], names: Sequence[str], image_size: int | None = None) -> None:
        self._data, self._names, self._image_size = list(data), list(names), image_size

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 3, H, W), RGB, also of grey files: a folder may hold both."""
        return _stack([decode_image(self._data[row], self._names[row]) for row in rows], self._image_size)

    def select(self, rows: np.ndarray) -> EncodedImages:
        """Returns the images of these rows, in this order."""
        return EncodedImages([self._data[r] for r in rows], [self._names[r] for r in rows], self._image_size)

    def whole(self, row: int) -> np.ndarray:
        """Returns the picture of one row as its file has it, uint8 (H, W) or (H, W, 3)."""
        return decode_image(self._data[row], self._names[row])


class FileImages:
    """Image files, read and decoded when asked for.

    Args:
        paths: N image files.
        image_size: side in pixels to which images are cut and resized; None = all have the same size already.
        boxes: of the face in each picture; None = whole pictures.
    """

    def __init__(
        self, paths: Sequence[Path], image_size: int | None = None, boxes: Sequence[Box | None] | None = None
    ) -> None:
        self._paths, self._image_size = list(paths), image_size
        self._boxes = [None] * len(self._paths) if boxes is None else list(boxes)

    def __len__(self) -> int:
        return len(self._paths)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 3, H, W), RGB, also of grey files: a folder may hold both."""
        return _stack([self._one(row) for row in rows], self._image_size)

    def select(self, rows: np.ndarray) -> FileImages:
        """Returns the images of these rows, in this order."""
        return FileImages([self._paths[row] for row in rows], self._image_size, [self._boxes[row] for row in rows])

    def place(self, row: int) -> tuple[Path, Box | None]:
        """Returns the file of one row, and the box of the face in it; None where the whole picture is used."""
        return self._paths[row], self._boxes[row]

    def whole(self, row: int) -> np.ndarray:
        """Returns the picture of one row as its file has it, uint8 (H, W) or (H, W, 3), with what lies around a box."""
        return read_image(self._paths[row])

    def box(self, row: int) -> Box | None:
        """Returns the box of the face in one picture; None = the whole picture is used."""
        return self._boxes[row]

    def file_key(self, row: int) -> str:
        """Returns what changes when the file of one row does: length and time of change."""
        status = self._paths[row].stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def _one(self, row: int) -> np.ndarray:
        image, box = read_image(self._paths[row]), self._boxes[row]
        return image if box is None else cut_out(image, box, str(self._paths[row]))


def _stack(images: list[np.ndarray], image_size: int | None) -> Tensor:
    """Returns uint8 (n, 3, H, W) for decoded images, grey or RGB."""
    if image_size is not None:
        images = [resize_square(image, image_size) for image in images]
    rgb = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1) for image in images]
    return torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2).contiguous()


def _on_black(image: Image.Image) -> np.ndarray:
    """Returns a picture with an alpha channel, or a transparent colour, over black; opaque pixels stay as they are."""
    is_grey = image.mode in ("1", "L", "LA", "La")
    *colours, alpha = image.convert("RGBA").split()
    faded = [ImageChops.multiply(colour, alpha) for colour in (colours[:1] if is_grey else colours)]
    return np.array(faded[0] if is_grey else Image.merge("RGB", faded))
