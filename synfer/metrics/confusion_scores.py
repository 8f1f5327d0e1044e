"""Scores that follow from a confusion matrix alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def confusion_scores(confusion: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Returns accuracy, mean_class_accuracy, macro_f1 and recall/<name> of a confusion matrix.

    A class without a single true sample has no recall: it gets no entry and does not enter the mean class accuracy.
    The macro F1 is the mean over the classes that occur among the true or the predicted labels.

    Args:
        confusion: counts (K, K); rows are true classes, columns predicted ones.
        names: K expression names.

    Returns:
        Numbers in [0, 1] by name; empty for an empty matrix.
    """
    counts = confusion.to("cpu", torch.float64)
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    if counts.sum() == 0:
        return {}
    recall = right / true.clamp_min(1)
    f1 = 2 * right / (true + predicted).clamp_min(1)
    scores = {
        "accuracy": float(right.sum() / counts.sum()),
        "mean_class_accuracy": float(recall[true > 0].mean()),
        "macro_f1": float(f1[true + predicted > 0].mean()),
    }
    scores.update({f"recall/{n}": float(r) for n, r, t in zip(names, recall, true, strict=True) if t > 0})
    return scores
