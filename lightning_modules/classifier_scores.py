"""What a classifier is scored by, and the pictures of it."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from synfer.metrics.affect_scores import AffectScores
from synfer.metrics.gathered_rows import GatheredRows
from synfer.metrics.masked_mean import MaskedMean
from synfer.metrics.soft_label_scores import SoftLabelScores
from synfer.pictures.confusion_matrix import save_confusion_matrix
from synfer.pictures.reliability_diagram import save_reliability_diagram


def evaluation_metrics(num_classes: int, rates_affect: bool = False) -> nn.ModuleDict:
    """Returns the metrics of one stage: confusion, ece, confidence, loss, soft_label; affect where it is rated."""
    affect = {"affect": AffectScores()} if rates_affect else {}
    return nn.ModuleDict(
        {
            **affect,
            "confusion": MulticlassConfusionMatrix(num_classes, validate_args=False),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, norm="l1", validate_args=False),
            # The probability of the chosen class, and whether it was the true one.
            "confidence": GatheredRows({"confidence": torch.empty(0), "right": torch.empty(0)}, keyed=False),
            "loss": MaskedMean(),
            "soft_label": SoftLabelScores(num_classes),
        }
    )


def save_evaluation_pictures(
    trainer: Trainer, stage: str, label_space: tuple[str, ...], confusion: Tensor, rows: dict[str, Tensor]
) -> None:
    """Writes confusion matrix and reliability diagram into ``samples/`` of the run folder, and to W&B.

    Args:
        trainer: of the run.
        stage: "val" or "test".
        label_space: K names.
        confusion: counts (K, K).
        rows: ``confidence`` and ``right`` of each evaluated row, (N,).
    """
    folder = Path(trainer.default_root_dir) / "samples"
    title = f"{stage}, epoch {trainer.current_epoch}" if stage == "val" else stage
    pictures = {
        "confusion": save_confusion_matrix(confusion, label_space, folder / f"confusion_{stage}.png", title),
        "reliability": save_reliability_diagram(
            rows["confidence"], rows["right"] > 0, folder / f"reliability_{stage}.png", title
        ),
    }
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            for name, path in pictures.items():
                logger.log_image(f"{stage}/{name}", [str(path)])
