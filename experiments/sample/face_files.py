"""Faces as PNG files that say how they were made: one, a grid, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments.sample.face_maker import FaceMaker, as_text
from experiments.sample.face_order import FaceOrder
from synfer.pictures.sample_grid import save_png, save_sample_grid


def write_faces(maker: FaceMaker, order: FaceOrder, out: Path, zoom: int | None = None) -> str:
    """Makes the faces of an order and writes them.

    Args:
        maker: the generator.
        order: what is wanted.
        out: a ``.png`` file, of several faces a grid with a row per expression; anything else is a folder, made if
            missing, of a file per face.
        zoom: whole-number enlargement; None = 1, and of a grid what brings small faces to about 96 pixels.

    Returns:
        a line that says what lies where.

    Raises:
        ValueError: a face cannot be made, or a zoom below 1.
    """
    if zoom is not None and zoom < 1:
        raise ValueError(f"--zoom: found {zoom}, expected at least 1")
    images: list[Tensor] = []
    records: list[dict[str, Any]] = []
    for faces in maker.make(order):
        for place, image in enumerate(faces.images.cpu()):
            record = maker.record(order, faces, place)
            if out.suffix.lower() != ".png":
                name = f"{record['expression']}-seed{record['seed']}-{record['sample_id']}.png"
                save_png(as_picture(image, zoom or 1), out / name, as_text([record]))
            else:
                images.append(image)
            records.append(record)
    size = maker.synthesiser.image_size
    if len(images) == 1:
        save_png(as_picture(images[0], zoom or 1), out, as_text(records))
    elif images:
        save_sample_grid(torch.stack(images), list(order.expressions), order.count, out, zoom, as_text(records))
    made = "1 face" if len(records) == 1 else f"{len(records)} faces"
    return f"{out}: {made}, {size}x{size} pixels, seed {order.seed}"


def as_picture(image: Tensor, zoom: int = 1) -> Image.Image:
    """Returns a face, uint8 (3, H, W), as a picture, each pixel enlarged to ``zoom`` × ``zoom``."""
    pixels = image.permute(1, 2, 0).numpy().repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(pixels)
