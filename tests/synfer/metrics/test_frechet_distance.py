from __future__ import annotations

import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from synfer.metrics.frechet_distance import frechet_distance, weighted_moments


def features(n: int, d: int = 6, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + shift


def root_by_eigenvalues(first: tuple, second: tuple) -> float:
    """The textbook formula with the root of the unsymmetric product, from its complex eigenvalues."""
    (m1, c1), (m2, c2) = first, second
    root = torch.linalg.eigvals(c1 @ c2).sqrt().real.sum()
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * root)


def test_equals_the_textbook_formula_and_torchmetrics() -> None:
    one, two = weighted_moments(features(200)), weighted_moments(features(150, seed=1, shift=0.7))
    found = frechet_distance(one, two)
    assert found == pytest.approx(root_by_eigenvalues(one, two), rel=1e-10)
    assert found == pytest.approx(float(_compute_fid(*one, *two)), rel=1e-10)
    assert found == pytest.approx(frechet_distance(two, one), rel=1e-10)


def test_equals_the_closed_form_of_commuting_covariances() -> None:
    mean, spread, other_spread = torch.zeros(3).double(), torch.tensor([1.0, 4.0, 0.0]), torch.tensor([9.0, 1.0, 4.0])
    found = frechet_distance((mean, spread.diag().double()), (mean + 2, other_spread.diag().double()))
    assert found == pytest.approx(3 * 4 + (1 - 3) ** 2 + (2 - 1) ** 2 + (0 - 2) ** 2)


def test_moments_are_the_usual_ones_where_weights_are_alike() -> None:
    rows = features(50)
    for weights in (None, torch.full((50,), 0.3)):
        mean, covariance = weighted_moments(rows.float(), weights)
        assert torch.allclose(mean, rows.mean(0), atol=1e-5) and torch.allclose(covariance, rows.T.cov(), atol=1e-4)
        assert mean.dtype == covariance.dtype == torch.float64


def test_a_weight_of_two_moves_the_mean_like_a_second_copy() -> None:
    rows, weights = features(4), torch.tensor([2.0, 1, 1, 1])
    assert torch.allclose(weighted_moments(rows, weights)[0], torch.cat([rows[:1], rows]).mean(0))


def test_a_far_off_mean_costs_no_digits() -> None:
    rows = features(300)
    covariance = weighted_moments(rows + 1e6)[1]
    assert torch.allclose(covariance, rows.T.cov(), rtol=1e-7)


def test_fewer_faces_than_dimensions() -> None:
    rows = features(5, d=40)
    other = features(6, d=40, seed=1)
    assert frechet_distance(weighted_moments(rows), weighted_moments(rows)) == pytest.approx(0, abs=1e-4)
    one, two = weighted_moments(rows), weighted_moments(other)
    # tr (C₁C₂)^½ is the sum of the singular values of X₁X₂ᵀ for centred rows: no root of a singular matrix in it.
    centred = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (rows, other)]
    root = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    exact = float((one[0] - two[0]).square().sum() + one[1].trace() + two[1].trace() - 2 * root)
    assert frechet_distance(one, two) == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.0])])
def test_one_face_has_no_covariance(weights: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="found 1 faces in a set, expected at least 2"):
        weighted_moments(features(1 if weights is None else 2), weights)
