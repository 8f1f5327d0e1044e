"""Fréchet distance between two sets of features, in float64 and with weights."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_moments(features: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns the mean (D,) and the covariance (D, D), float64.

    Weights are importance weights w, normalised to Σw = 1: mean Σ w x, covariance Σ w (x − m)(x − m)ᵀ / (1 − Σ w²),
    which is the usual one (divisor n − 1) where all weights are alike. Deviations are taken from the mean first; the
    difference of two large sums would lose digits.

    Args:
        features: (n, D), any float type.
        weights: (n,), not negative; None = all alike.

    Raises:
        ValueError: fewer than two rows with a weight above 0: they have no covariance.
    """
    rows = features.double()
    weights = torch.ones(len(rows), device=rows.device) if weights is None else weights
    if int((weights > 0).sum()) < 2:
        raise ValueError(f"Fréchet distance: found {int((weights > 0).sum())} faces in a set, expected at least 2")
    share = (weights / weights.sum()).double()
    share = share / share.sum()
    mean = share @ rows
    deviations = rows - mean
    covariance = (deviations * share[:, None]).T @ deviations / (1 - share.square().sum())
    return mean, covariance


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Returns ‖m₁ − m₂‖² + tr(C₁ + C₂ − 2 (C₁C₂)^½) of two (mean, covariance) pairs (Heusel et al. 2017, eq. 6).

    C₁C₂ has the eigenvalues of the symmetric C₁^½ C₂ C₁^½, so no root of an unsymmetric matrix is needed: sound where
    fewer faces than feature dimensions leave the covariances singular.

    Args:
        first: mean (D,) and covariance (D, D), float64.
        second: the same of the other set.
    """
    (mean, covariance), (other_mean, other_covariance) = first, second
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt()
    inner = root.T @ other_covariance @ root
    roots = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * roots.sum()
    return max(0.0, float(distance))
