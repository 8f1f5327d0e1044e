"""A picture of faces in groups of columns, a row per name, with a line of text under each face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from synfer.faces.face_shape import cut_faces

_MARGIN, _HEADING, _LINE, _GAP = 110, 26, 18, 14


@dataclass(frozen=True)
class FaceColumns:
    """One group of columns.

    Attributes:
        title: text above the group.
        faces: per row, uint8 (n, 3, H, W); n may differ from row to row, and be 0.
        captions: per row, n texts.
    """

    title: str
    faces: Sequence[Tensor]
    captions: Sequence[Sequence[str]]


def save_captioned_grid(groups: Sequence[FaceColumns], row_names: Sequence[str], path: Path) -> None:
    """Writes the groups side by side as PNG; small faces are enlarged to about 96 pixels, others than
    squares cut around the centre.

    Args:
        groups: at least one with a face.
        row_names: text at the left of each row.
        path: where to; missing folders are made.

    Raises:
        ValueError: a group has another number of rows.
    """
    for group in groups:
        if not len(group.faces) == len(group.captions) == len(row_names):
            raise ValueError(f"group '{group.title}': {len(group.faces)} rows of faces, expected {len(row_names)}")
    side = max(min(face.shape[-2:]) for group in groups for row in group.faces for face in row)
    zoom = max(1, round(96 / side))
    cell = side * zoom
    widths = [max(1, *(len(row) for row in group.faces)) * cell for group in groups]
    height = _HEADING + len(row_names) * (cell + _LINE)
    picture = Image.new("RGB", (_MARGIN + sum(widths) + _GAP * (len(groups) - 1), height), (255, 255, 255))
    draw, font, small = ImageDraw.Draw(picture), ImageFont.load_default(16), ImageFont.load_default(12)
    for row, name in enumerate(row_names):
        draw.text((8, _HEADING + row * (cell + _LINE) + cell // 2 - 8), name, fill=(0, 0, 0), font=font)
    left = _MARGIN
    for group, width in zip(groups, widths, strict=True):
        draw.text((left + width // 2, _HEADING // 2), group.title, fill=(0, 0, 0), font=font, anchor="mm")
        for row, (faces, captions) in enumerate(zip(group.faces, group.captions, strict=True)):
            top = _HEADING + row * (cell + _LINE)
            for column, (face, caption) in enumerate(zip(faces, captions, strict=True)):
                pixels = np.ascontiguousarray(cut_faces(face).permute(1, 2, 0).cpu().numpy())
                x = left + column * cell
                picture.paste(Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST), (x, top))
                draw.text((x + cell // 2, top + cell + _LINE // 2), caption, fill=(0, 0, 0), font=small, anchor="mm")
        left += width + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
