"""When an evaluation is over: the faces that a classifier was most sure of, and wrong, are written down."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.rows.sample_table import UNLABELLED
from synfer.faces.face_shape import resize_faces
from synfer.foundation.rank_states import states_of_ranks
from synfer.pictures.captioned_grid import FaceColumns, save_captioned_grid
from synfer.runs.run_format import MISCLASSIFIED

LARGEST_SIDE = 112
"""Pixels of the side of a kept face; larger ones are made smaller."""


@dataclass(frozen=True)
class _Wrong:
    confidence: float
    sample_id: str
    label: int
    predicted: int
    face: Tensor


class MisclassifiedFaces(Callback):
    """Writes the faces with the highest probability of a wrong class, in rows of their true class.

    ``misclassified/val.png`` and ``val.csv`` (sample id, label, predicted, confidence) are of the last validation of a
    ``fit`` that came to its end, or of ``validate``, ``test.png`` and ``test.csv`` of ``test``. Often these faces are
    labelled wrongly. The pictures are of the user's data: they are written into the run folder and nowhere else, not to
    W&B, and into a report only where the faces were drawn.

    Each rank keeps its own most wrong faces; at the end rank 0 gets those of all (a collective).

    Args:
        faces: how many; 0 = none, nothing is kept.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, faces: int = 24) -> None:
        if faces < 0:
            raise ValueError(f"misclassified.faces: found {faces}, expected at least 0 (0 = none)")
        self.faces = faces
        self._found: list[_Wrong] = []

    # ------------------------------------------------------------------ batches

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last evaluation."""
        self._found = []

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the most wrong faces of a batch."""
        self._take(outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def _take(self, probabilities: Any, batch: Any) -> None:
        """Takes a batch into the kept ones: probabilities (B, K), or None where an evaluation gives none."""
        if not self.faces or not isinstance(probabilities, Tensor) or not len(batch["label"]):
            return
        confidence, predicted = probabilities.max(1)
        right = (predicted == batch["label"]) | (batch["label"] == UNLABELLED)  # nobody knows better
        wrong = torch.where(right, -1.0, confidence.float())
        values, rows = wrong.topk(min(self.faces, len(wrong)))
        least = self._found[-1].confidence if len(self._found) >= self.faces else 0.0
        for value, row in zip(values.tolist(), rows.tolist(), strict=True):
            if value <= least:
                break
            face = _small(batch["image"][row])
            sample_id = str(batch["sample_id"][row])
            self._found.append(_Wrong(value, sample_id, int(batch["label"][row]), int(predicted[row]), face))
        self._found = _most_wrong(self._found, self.faces)

    # ------------------------------------------------------------------ the end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes those of the last validation."""
        self._write(trainer, pl_module, "val")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes those of ``validate``."""
        if trainer.state.fn == "validate":
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes those of ``test``."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, module: Any, split: str) -> None:
        if not self.faces or getattr(trainer, "fast_dev_run", False):
            return
        found = [wrong for kept in states_of_ranks(self._found) for wrong in kept]
        found, self._found = _most_wrong(found, self.faces), []
        if not trainer.is_global_zero or not found:
            return
        names, folder = module.label_space, Path(trainer.default_root_dir) / MISCLASSIFIED
        labels = sorted({wrong.label for wrong in found})
        rows = [[wrong for wrong in found if wrong.label == label] for label in labels]
        faces = [torch.stack([wrong.face for wrong in row]) for row in rows]
        captions = [[f"{names[wrong.predicted]} {wrong.confidence:.2f}" for wrong in row] for row in rows]
        title = f"{split}: label to the left, prediction below"
        save_captioned_grid(
            [FaceColumns(title, faces, captions)], [names[label] for label in labels], folder / f"{split}.png"
        )
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sample_id", "label", "predicted", "confidence"])
            for wrong in found:
                writer.writerow(
                    [wrong.sample_id, names[wrong.label], names[wrong.predicted], round(wrong.confidence, 4)]
                )


def _most_wrong(found: list[_Wrong], count: int) -> list[_Wrong]:
    """Returns so many of them, the surest first; of equally sure ones by their ids, on any number of ranks the same."""
    return sorted(found, key=lambda wrong: (-wrong.confidence, wrong.sample_id))[:count]


def _small(image: Tensor) -> Tensor:
    """Returns a face (3, H, W) in [0, 1] as uint8 on the CPU, no larger than it is shown."""
    side = max(image.shape[-2:])
    if side > LARGEST_SIDE:
        image = resize_faces(image[None], LARGEST_SIDE)[0]
    return (image.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
