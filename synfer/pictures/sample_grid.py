"""A picture of many faces: one row per expression, with its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from synfer.foundation.atomic_file import atomic_write


def save_sample_grid(
    images: Tensor,
    row_names: Sequence[str],
    columns: int,
    path: Path,
    zoom: int | None = None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Writes a grid as PNG.

    Args:
        images: uint8 (len(row_names) · columns, 3, H, W), row by row.
        row_names: text at the left of each row.
        columns: faces per row.
        path: where to; missing folders are made.
        zoom: whole-number enlargement; None brings small faces to about 96 pixels.
        text: what the file says of itself, by keyword.

    Raises:
        ValueError: the number of images is not rows × columns.
    """
    if len(images) != len(row_names) * columns:
        raise ValueError(f"sample grid: {len(images)} images for {len(row_names)} rows of {columns}")
    height, width = images.shape[-2:]
    zoom = zoom or max(1, round(96 / height))
    faces = images.permute(0, 2, 3, 1).cpu().numpy().repeat(zoom, 1).repeat(zoom, 2)
    height, width, margin = height * zoom, width * zoom, 110
    sheet = np.full((len(row_names) * height, margin + columns * width, 3), 255, np.uint8)
    for index, face in enumerate(faces):
        top, left = index // columns * height, margin + index % columns * width
        sheet[top : top + height, left : left + width] = face
    picture = Image.fromarray(sheet)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    for row, name in enumerate(row_names):
        draw.text((8, row * height + height // 2 - 8), name, fill=(0, 0, 0), font=font)
    save_png(picture, path, text or {})


def save_png(picture: Image.Image, path: Path, text: Mapping[str, str]) -> None:
    """Writes a picture as PNG, whole or not at all; missing folders are made.

    Args:
        picture: what to write.
        path: where to.
        text: what the file says of itself, by keyword (the format's own text entries).
    """
    with atomic_write(path) as partial:
        picture.save(partial, format="png", pnginfo=png_text(text))


def png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """Returns the text entries of a PNG file, by keyword."""
    said = PngImagePlugin.PngInfo()
    for keyword, words in text.items():
        said.add_itxt(keyword, words) if not words.isascii() else said.add_text(keyword, words)
    return said
