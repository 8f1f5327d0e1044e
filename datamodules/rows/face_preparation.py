"""Bringing one face to the size that a classifier was evaluated on, by the steps of evaluation and in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from datamodules.rows.grey_or_colour import as_rgb
from datamodules.rows.images import resize_square
from synfer.faces.face_shape import resize_faces


@dataclass(frozen=True)
class FacePreparation:
    """The sizes that a face goes through: that of the reader, that of the data module, that of the classifier.

    The first two round to whole numbers of 0…255, so that leaving one out gives slightly other probabilities.

    Attributes:
        model_size: side in pixels that the classifier works on.
        reader_size: ``data.reader.init_args.image_size`` of the training; None = as they are.
        data_size: ``data.image_size`` of the training; None = as they are.
    """

    model_size: int
    reader_size: int | None = None
    data_size: int | None = None

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
        return cls(model_size, _side(reader.get("image_size")), _side(data.get("image_size")))

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


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _side(found: Any) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
