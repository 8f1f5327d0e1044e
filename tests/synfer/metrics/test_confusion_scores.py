from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix, multiclass_f1_score

from synfer.metrics.confusion_scores import confusion_scores

NAMES = ("neutral", "happy", "sad", "fear")


def test_scores_are_those_of_torchmetrics() -> None:
    torch.manual_seed(0)
    true, predicted = torch.randint(0, 4, (2, 300))
    scores = confusion_scores(multiclass_confusion_matrix(predicted, true, 4), NAMES)
    assert scores["accuracy"] == pytest.approx(float(multiclass_accuracy(predicted, true, 4, average="micro")))
    assert scores["mean_class_accuracy"] == pytest.approx(
        float(multiclass_accuracy(predicted, true, 4, average="macro"))
    )
    assert scores["macro_f1"] == pytest.approx(float(multiclass_f1_score(predicted, true, 4, average="macro")))
    recall = multiclass_accuracy(predicted, true, 4, average="none")
    assert [scores[f"recall/{name}"] for name in NAMES] == pytest.approx(recall.tolist())


def test_a_class_without_samples_has_no_recall() -> None:
    confusion = torch.tensor([[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    scores = confusion_scores(confusion, NAMES)
    assert "recall/sad" not in scores
    assert scores["mean_class_accuracy"] == pytest.approx((0.75 + 1 + 1) / 3)
    assert scores["macro_f1"] == pytest.approx((6 / 7 + 4 / 5 + 1) / 3)


def test_nothing_seen_gives_no_scores() -> None:
    assert confusion_scores(torch.zeros(4, 4, dtype=torch.long), NAMES) == {}
