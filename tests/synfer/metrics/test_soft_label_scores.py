from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from synfer.metrics.soft_label_scores import SoftLabelScores


def rows(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, and labels: a third one expression, a third halves of two, a third shares of all."""
    random = torch.Generator().manual_seed(0)
    probabilities = torch.rand(n, 5, generator=random).softmax(1)
    soft_label = torch.rand(n, 5, generator=random).softmax(1)
    first, second = torch.arange(n) % 5, (torch.arange(n) // 3 % 2 + torch.arange(n) + 1) % 5
    soft_label[0::3] = F.one_hot(first, 5).float()[0::3]
    soft_label[1::3] = (F.one_hot(first, 5) + F.one_hot(second, 5)).float()[1::3] / 2
    return probabilities, soft_label


@pytest.mark.parametrize("sizes", [(60,), (1, 0, 39, 20)])
def test_scores_are_those_of_the_definitions(sizes: tuple[int, ...]) -> None:
    probabilities, soft_label = rows()
    metric = SoftLabelScores(5)
    for part in zip(probabilities.split(list(sizes)), soft_label.split(list(sizes)), strict=True):
        metric.update(*part)
    found = metric.compute()
    soft = torch.arange(60) % 3 > 0
    p, q = probabilities[soft].double(), soft_label[soft].double()
    assert found["soft_label_divergence"] == pytest.approx(float(F.kl_div(p.log(), q, reduction="batchmean")), abs=1e-6)
    assert found["soft_label_overlap"] == pytest.approx(float(torch.minimum(p, q).sum(1).mean()), abs=1e-6)
    right: dict[tuple[int, ...], list[bool]] = {}
    for row in range(1, 60, 3):
        shown = tuple(torch.nonzero(soft_label[row])[:, 0].tolist())
        chosen = set(probabilities[row].topk(2).indices.tolist())
        right.setdefault(shown, []).append(chosen == set(shown))
    every = [fine for group in right.values() for fine in group]
    assert found["pair_accuracy"] == pytest.approx(sum(every) / len(every)) and any(every)
    means = [sum(group) / len(group) for group in right.values()]
    assert found["pair_mean_accuracy"] == pytest.approx(sum(means) / len(means))


def test_labels_of_one_expression_have_no_such_scores() -> None:
    metric = SoftLabelScores(5)
    metric.update(torch.rand(4, 5).softmax(1), torch.eye(5)[:4])
    assert metric.compute() == {}


def test_a_perfect_prediction() -> None:
    metric = SoftLabelScores(5)
    soft_label = rows()[1]
    metric.update(soft_label, soft_label)
    found = metric.compute()
    assert found["soft_label_divergence"] == pytest.approx(0, abs=1e-6)
    assert found["soft_label_overlap"] == pytest.approx(1) and found["pair_accuracy"] == 1
