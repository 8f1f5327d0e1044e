from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from synfer.metrics.kid import kid_over_subsets, squared_mmd


def draw(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_one_class_is_the_usual_estimate() -> None:
    generated, real = draw(30, 1), draw(30, 2, 0.5)
    zeros = torch.zeros(30, dtype=torch.int64)
    assert float(squared_mmd(generated, real, zeros, zeros, torch.ones(1).double())) == pytest.approx(
        float(poly_mmd(real, generated)), rel=1e-10
    )


def test_subsets_of_all_faces_do_not_vary() -> None:
    generated, real = draw(30, 1), draw(30, 2, 0.5)
    zeros = torch.zeros(30, dtype=torch.int64)
    mean, std = kid_over_subsets(generated, real, zeros, zeros, seed=1, subsets=5)
    assert mean == pytest.approx(float(poly_mmd(real, generated)), rel=1e-10) and std == pytest.approx(0, abs=1e-12)


def test_classes_in_other_shares_leave_the_estimate_unbiased() -> None:
    """Among real faces class 1 is rare and class 2 not asked for: the distance to the same mixture is 0 on average."""
    estimates, naive = [], []
    for seed in range(60):
        label, other = torch.arange(20) % 2, torch.tensor([0] * 32 + [1] * 4 + [2] * 6)
        generated, real = draw(20, 2 * seed) + 2.0 * label[:, None], draw(42, 2 * seed + 1) + 2.0 * other[:, None]
        estimates.append(kid_over_subsets(generated, real, label, other, seed, subsets=1)[0])
        naive.append(float(poly_mmd(real[:20], generated)))
    values = torch.tensor(estimates)
    assert abs(float(values.mean())) < 3 * float(values.std()) / len(values) ** 0.5
    assert sum(naive) / len(naive) > 10 * abs(float(values.mean()))


def test_subsets_follow_the_seed() -> None:
    generated, real = draw(60, 1), draw(60, 2)
    zeros = torch.zeros(60, dtype=torch.int64)
    results = [kid_over_subsets(generated, real, zeros, zeros, seed, subsets=4, subset_size=20) for seed in (1, 1, 2)]
    assert results[0] == results[1] != results[2] and results[0][1] > 0


def test_a_class_of_one_face_has_no_unbiased_estimate() -> None:
    label = torch.tensor([0, 0, 1])
    assert all(math.isnan(value) for value in kid_over_subsets(draw(3, 1), draw(3, 2), label, label, seed=1))
