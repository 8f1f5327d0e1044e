"""Scores of a classifier's logits behind a temperature, from all rows at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from synfer.metrics.confusion_scores import confusion_scores


def calibrated_scores(
    logits: Tensor, soft_label: Tensor, label: Tensor, temperature: Tensor, label_space: Sequence[str]
) -> tuple[dict[str, float], Tensor]:
    """Returns scores by name, and the confusion matrix, int64 (K, K).

    The scores are those of :func:`synfer.metrics.confusion_scores.confusion_scores`, ``ece`` (expected calibration
    error), ``ece_uncalibrated`` (at a temperature of 1) and ``loss`` (cross-entropy with the soft labels).

    Args:
        logits: float (n, K).
        soft_label: float (n, K), rows sum to 1.
        label: int64 (n,).
        temperature: by which logits are divided, above 0.
        label_space: names of the K classes.
    """
    k = len(label_space)
    log_probabilities = (logits / temperature).log_softmax(1)
    probabilities = log_probabilities.exp()
    confusion = multiclass_confusion_matrix(probabilities, label, k, validate_args=False)
    scores = confusion_scores(confusion, label_space)
    scores["ece"] = float(multiclass_calibration_error(probabilities, label, k, validate_args=False))
    raw = multiclass_calibration_error(logits.softmax(1), label, k, validate_args=False)
    scores["ece_uncalibrated"] = float(raw)
    scores["loss"] = float(-(soft_label * log_probabilities).sum(1).mean())
    return scores, confusion
