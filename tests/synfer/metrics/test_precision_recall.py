from __future__ import annotations

import math

import pytest
import torch

from synfer.metrics import pairwise_distance
from synfer.metrics.precision_recall import improved_precision_recall


def draw(n: int, seed: int, d: int = 4) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(generated: torch.Tensor, real: torch.Tensor, k: int) -> tuple[float, float]:
    def inside(query: torch.Tensor, reference: torch.Tensor) -> float:
        hits = 0
        for x in query:
            for i, y in enumerate(reference):
                others = sorted(float((y - z).norm()) for j, z in enumerate(reference) if j != i)
                if float((x - y).norm()) <= others[k - 1]:
                    hits += 1
                    break
        return hits / len(query)

    return inside(generated, real), inside(real, generated)


@pytest.mark.parametrize("pairs", [7, 2**23])
def test_equals_the_definition_whatever_the_block(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise_distance, "BLOCK_PAIRS", pairs)
    generated, real = draw(30, 1) * 0.6 + 0.8, draw(25, 2)
    expected = by_definition(generated, real, 3)
    assert improved_precision_recall(generated, real) == pytest.approx(expected)
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_one_mode_of_two_is_precise_and_recalls_half() -> None:
    real = torch.cat([draw(40, 1), draw(40, 2) + 50])
    precision, recall = improved_precision_recall(draw(40, 1) + 1e-6, real)
    assert precision == 1 and recall == pytest.approx(0.5)


def test_weights_count_in_the_recall() -> None:
    real = torch.cat([draw(40, 1), draw(40, 2) + 50])
    weights = torch.tensor([3.0] * 40 + [1.0] * 40)
    assert improved_precision_recall(draw(40, 1), real, real_weights=weights)[1] == pytest.approx(0.75)


def test_close_pairs_far_from_the_origin_are_told_apart() -> None:
    real = draw(20, 1) * 1e-3 + 1e3
    assert improved_precision_recall(real + 1, real) == (0, 0) and improved_precision_recall(real, real) == (1, 1)


def test_too_few_for_a_third_neighbour() -> None:
    assert all(math.isnan(value) for value in improved_precision_recall(draw(3, 1), draw(9, 2)))
