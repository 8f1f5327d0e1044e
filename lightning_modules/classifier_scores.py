"""What a classifier is scored by, and the pictures of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from datamodules.batch import Batch
from datamodules.rows.sample_table import UNLABELLED
from lightning_modules.affect_rows import affect_in
from synfer.labels.affect_losses import AffectSettings
from synfer.metrics.affect_scores import AffectScores
from synfer.metrics.confusion_scores import confusion_scores
from synfer.metrics.gathered_rows import GatheredRows
from synfer.metrics.masked_mean import MaskedMean
from synfer.metrics.soft_label_scores import SoftLabelScores
from synfer.pictures.confusion_matrix import save_confusion_matrix
from synfer.pictures.reliability_diagram import save_reliability_diagram


class EvaluationScores(nn.Module):
    """What one stage is scored by, over all rows of all ranks: each row counts for what is known of it.

    Args:
        num_classes: K.
        affect: whether valence and arousal are scored, and whether alone.
    """

    def __init__(self, num_classes: int, affect: AffectSettings) -> None:
        of_expressions: dict[str, Metric] = {
            "confusion": MulticlassConfusionMatrix(num_classes, validate_args=False),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, norm="l1", validate_args=False),
            # The probability of the chosen class, and whether it was the true one.
            "confidence": GatheredRows({"confidence": torch.empty(0), "right": torch.empty(0)}, keyed=False),
            "loss": MaskedMean(),
            "soft_label": SoftLabelScores(num_classes),
        }
        of_affect = {"affect": AffectScores()} if affect.enabled else {}
        super().__init__()
        self.metrics = nn.ModuleDict({**({} if affect.alone else of_expressions), **of_affect})
        self._masked = affect.enabled

    def _metrics(self) -> dict[str, Metric]:
        return dict(self.metrics.items())  # type: ignore[arg-type]

    def reset(self) -> None:
        """Forgets what was taken in."""
        for metric in self._metrics().values():
            metric.reset()

    def update(self, probabilities: Tensor, rated: Tensor | None, batch: Batch) -> None:
        """Takes in one batch.

        Args:
            probabilities: float32 (B, K).
            rated: valence and arousal by the network, float32 (B, 2); None = it rates none.
            batch: the truth.
        """
        metrics = self._metrics()
        if rated is not None:
            metrics["affect"].update(rated, affect_in(batch))
        if "confusion" not in metrics:
            return
        label, soft_label = batch["label"], batch["soft_label"]
        if self._masked:
            named = label != UNLABELLED
            probabilities, label, soft_label = probabilities[named], label[named], soft_label[named]
        metrics["confusion"].update(probabilities, label)
        metrics["ece"].update(probabilities, label)
        confidence, chosen = probabilities.max(1)
        metrics["confidence"].update(confidence=confidence, right=chosen == label)
        metrics["loss"].update(-(soft_label * probabilities.clamp_min(1e-12).log()).sum(1))
        metrics["soft_label"].update(probabilities, soft_label)

    def compute(self, label_space: tuple[str, ...]) -> tuple[dict[str, float], tuple[Tensor, dict[str, Tensor]] | None]:
        """Returns the scores by name, and confusion matrix and confidences for pictures; None = no row to draw.

        A collective: every rank computes all of it, whatever it saw itself.

        Args:
            label_space: K names.
        """
        metrics = self._metrics()
        scores: dict[str, float] = metrics.pop("affect").compute() if "affect" in metrics else {}
        confusion = metrics.pop("confusion").compute() if metrics else None
        if confusion is None or (self._masked and not confusion.any()):  # no row has an expression
            return scores, None
        values: dict[str, Any] = {name: metric.compute() for name, metric in metrics.items()}
        confidence, of_soft_labels = values.pop("confidence"), values.pop("soft_label")
        scores = {**confusion_scores(confusion, label_space), **of_soft_labels, **scores}
        return scores | {name: float(value) for name, value in values.items()}, (confusion, confidence)


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
