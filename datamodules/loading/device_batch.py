"""What happens to a batch once it is on the device: float images, augmentation, a check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.batch import validate_batch
from datamodules.loading.augmentation import Augmentation
from datamodules.loading.batch_augmentation import augment_batch
from datamodules.rows.grey_or_colour import as_rgb


class DeviceBatch:
    """Makes images float32 in [0, 1], augments training batches, and checks the first batch of every epoch.

    Args:
        label_space: of the batches.
        augmentation: of training batches.
    """

    def __init__(self, label_space: tuple[str, ...], augmentation: Augmentation) -> None:
        self._label_space, self._augmentation = label_space, augmentation
        self._validated: tuple[Any, int] | None = None

    def prepare(
        self, batch: Any, trainer: Any, is_training: bool, seed: int, mirrored_order: Sequence[int]
    ) -> dict[str, Any]:
        """Returns the batch, changed in place.

        Args:
            batch: as it was loaded, on the device.
            trainer: of the run; None = neither augmented nor checked.
            is_training: whether it is trained on.
            seed: of the augmentation.
            mirrored_order: of the action units, for mirrored faces.

        Raises:
            ValueError: the checked batch breaks contract C1.
        """
        if trainer is not None:
            now = (trainer.state.stage, trainer.current_epoch)
            if self._validated != now:
                whole: Any = {**batch, "image": as_rgb(_as_float(batch["image"]))}
                validate_batch(whole, self._label_space)
                self._validated = now
            if is_training and self._augmentation.enabled:
                stream = (seed, trainer.current_epoch, trainer.global_step)
                augment_batch(batch, self._augmentation, mirrored_order, *stream)
        batch["image"] = as_rgb(_as_float(batch["image"]))
        return batch  # type: ignore[no-any-return]


def _as_float(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image
