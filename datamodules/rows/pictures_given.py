"""Faces as people hold them in Python, as files, PIL images, arrays or tensors: taken apart, or refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.rows.images import BadImageError, image_array, read_image

Given: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
"""What one can call a picture."""

_EXPECTED = (
    "a path, a PIL image, uint8 in 0…255 or floats in [0, 1], of the shape (H, W), (H, W, 3), (3, H, W), (B, 3, H, W) "
    "or (B, H, W, 3)"
)
_CHANNELS = (1, 3)
_ROUNDING = 1e-3
"""So far outside of [0, 1] a resampled picture may lie."""


def take_apart(given: Given | Sequence[Given]) -> list[np.ndarray | Tensor]:
    """Returns single pictures: uint8 (H, W) or (H, W, 3), or float32 tensors (1 or 3, H, W) in [0, 1].

    Args:
        given: one picture, a batch of them as one array or tensor, or a sequence of these; mixed as one likes.

    Raises:
        ValueError: neither of these: another type, shape, number format or range. The line says what was found.
    """
    if isinstance(given, (str, Path, Image.Image, np.ndarray, Tensor)):
        return _pictures(given, "image")
    if not isinstance(given, Sequence):
        raise ValueError(f"image: found {type(given).__name__}, expected {_EXPECTED}, or a list of these")
    return [picture for place, one in enumerate(given) for picture in _pictures(one, f"image {place}")]


def _pictures(given: Given, where: str) -> list[np.ndarray | Tensor]:
    if isinstance(given, (str, Path)):
        return [_of_file(Path(given))]
    if isinstance(given, Image.Image):
        try:
            return [image_array(given)]
        except ValueError as error:
            raise BadImageError(f"{where}: found a PIL image with {error}") from error
    if isinstance(given, np.ndarray):
        try:
            given = torch.from_numpy(np.ascontiguousarray(given))
        except TypeError as error:
            raise ValueError(f"{where}: found numpy {given.dtype}, expected {_EXPECTED}") from error
    if not isinstance(given, Tensor):
        raise ValueError(f"{where}: found {type(given).__name__}, expected {_EXPECTED}")
    pixels = _channels_first(given.detach().cpu(), where)
    _check_numbers(pixels, where)
    if pixels.is_floating_point():
        return list(pixels.float().clamp(0, 1))
    return [picture[:, :, 0] if picture.shape[-1] == 1 else picture for picture in pixels.permute(0, 2, 3, 1).numpy()]


def _of_file(path: Path) -> np.ndarray:
    if path.is_dir():
        raise BadImageError(f"{path}: found a folder, expected an image file (label.py takes whole folders)")
    if not path.exists():
        raise FileNotFoundError(f"{path}: found no file, expected an image file")
    return read_image(path)


def _channels_first(pixels: Tensor, where: str) -> Tensor:
    """Returns (B, C, H, W) of a picture or of a batch of them, with the channels first or last."""
    shape = tuple(pixels.shape)
    if pixels.ndim == 2:
        pixels = pixels[None, None]
    elif pixels.ndim in (3, 4):
        batch = pixels if pixels.ndim == 4 else pixels[None]
        first, last = batch.shape[1] in _CHANNELS, batch.shape[3] in _CHANNELS
        if first == last:
            found = "channels that may come first or last" if first else "neither 1 nor 3 channels"
            raise ValueError(f"{where}: found the shape {shape}, {found}, expected {_EXPECTED}")
        pixels = batch if first else batch.permute(0, 3, 1, 2)
    if pixels.ndim != 4 or 0 in pixels.shape[1:]:
        raise ValueError(f"{where}: found the shape {shape}, expected {_EXPECTED}")
    return pixels


def _check_numbers(pixels: Tensor, where: str) -> None:
    """Refuses numbers that are no pixels, and those that are pixels of another scale."""
    kind = str(pixels.dtype).removeprefix("torch.")
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise ValueError(f"{where}: found {kind}, expected uint8 in 0…255 or floats in [0, 1]")
    if not pixels.numel():
        return
    low, high = (float(value) for value in torch.aminmax(pixels))
    if pixels.dtype == torch.uint8:
        if high == 1:  # a picture of 0 and 1 is what is left of floats in [0, 1]
            raise ValueError(f"{where}: found uint8 from {low:g} to 1, expected 0…255 (or floats in [0, 1])")
        return
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also true for NaN
        raise ValueError(
            f"{where}: found {kind} from {low:.4g} to {high:.4g}, expected floats in [0, 1] (0…255 as uint8, or / 255; "
            "not normalised)"
        )
