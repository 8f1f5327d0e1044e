"""Bringing one face to the size that a classifier was evaluated on, by the steps of evaluation and in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from datamodules.rows.alignment import Alignment
from datamodules.rows.alignment_record import AlignmentRecord, settings_in
from datamodules.rows.grey_or_colour import as_rgb
from datamodules.rows.images import resize_square
from synfer.faces.face_alignment import aligned, points_of_box, similarity
from synfer.faces.face_shape import resize_faces


@dataclass(frozen=True)
class FacePreparation:
    """The sizes that a face goes through: that of the reader, that of the data module, that of the classifier.

    The first two round to whole numbers of 0…255, so that leaving one out gives slightly other probabilities.

    Attributes:
        model_size: side in pixels that the classifier works on.
        reader_size: ``data.reader.init_args.image_size`` of the training; None = as they are.
        data_size: ``data.image_size`` of the training; None = as they are.
        alignment: ``data.alignment`` of the training; None = faces were not aligned.
    """

    model_size: int
    reader_size: int | None = None
    data_size: int | None = None
    alignment: Alignment | None = None

    @classmethod
    def of_run(cls, config: Path, model_size: int) -> FacePreparation:
        """Returns the steps of a run.

        Args:
            config: its ``config.yaml``; without that file, or where it says nothing of sizes, the classifier's own
                size is the only one.
            model_size: side in pixels that its classifier works on.
        """
        try:
            stored = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return cls(model_size)
        data = _mapping(_mapping(stored).get("data"))
        reader = _mapping(_mapping(data.get("reader")).get("init_args"))
        sizes = _side(reader.get("image_size")), _side(data.get("image_size"))
        return cls(model_size, *sizes, _alignment(_mapping(data.get("alignment")), config))

    def as_trained(self, record: AlignmentRecord | None) -> FacePreparation:
        """Returns the steps with the alignment that a classifier keeps; None = it keeps none, and these stay."""
        if record is None:
            return self
        if not record:
            return replace(self, alignment=None)
        return replace(self, data_size=record["image_size"], alignment=settings_in(record))

    def face_in(self, picture: np.ndarray, box: tuple[int, int, int, int]) -> Tensor | None:
        """Returns the face in a found box as training saw aligned ones; None where no face can lie like that.

        Args:
            picture: uint8 (H, W) or (H, W, 3).
            box: left, top, right and bottom in pixels.

        Raises:
            ValueError: the classifier was not trained with ``data.alignment``.
        """
        if self.alignment is None:
            raise ValueError(
                "found a classifier whose faces were not aligned, expected one trained with data.alignment"
            )
        matrix = similarity(points_of_box(box), self.alignment.template_points())
        if matrix is None:
            return None
        return replace(self, reader_size=None)(aligned(picture, matrix, self.data_size or self.model_size))

    def __call__(self, picture: np.ndarray | Tensor) -> Tensor:
        """Returns one face as the classifier takes it, (3, S, S): uint8 where no size was left to change, else float.

        Args:
            picture: uint8 (H, W) or (H, W, 3), or a tensor (1 or 3, H, W) of floats in [0, 1].
        """
        if isinstance(picture, Tensor):
            image = as_rgb(picture[None])
        else:
            pixels = picture if self.reader_size is None else resize_square(picture, self.reader_size)
            pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            image = as_rgb(torch.from_numpy(np.ascontiguousarray(pixels))[None])
        if self.data_size is not None:
            image = resize_faces(image, self.data_size)
        if image.shape[-2:] != (self.model_size, self.model_size):
            image = resize_faces(_as_float(image), self.model_size)
        return image[0]


def join_faces(faces: Sequence[Tensor], device: Any = "cpu") -> Tensor:
    """Returns prepared faces as one batch on a device: float32 (B, 3, S, S) in [0, 1]."""
    if any(face.is_floating_point() for face in faces):
        return torch.stack([_as_float(face) for face in faces]).to(device)
    return _as_float(torch.stack(list(faces)).to(device))


def _as_float(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _alignment(stored: Mapping[str, Any], config: Path) -> Alignment | None:
    if stored.get("kind", "none") == "none":
        return None
    try:
        return Alignment(**stored)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{config}: data.alignment: found {error}, expected what a training has written") from error


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _side(found: Any) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
