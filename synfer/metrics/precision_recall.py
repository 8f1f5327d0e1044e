"""Improved precision and recall of generated faces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synfer.metrics.pairwise_distance import distance_blocks


def improved_precision_recall(
    generated: Tensor, real: Tensor, k: int = 3, real_weights: Tensor | None = None
) -> tuple[float, float]:
    """Returns precision and recall of Kynkäänniemi et al. 2019 (arXiv 1904.06991, equations 1 and 2).

    The manifold of a set is the union of balls round its features, each reaching to the k-th nearest other feature.
    Precision is the share of generated faces in the manifold of the real ones, recall the share of real faces in the
    manifold of the generated ones. Both depend on how many faces there are: compare like with like.

    Args:
        generated: features (n, D).
        real: features (m, D).
        k: which neighbour bounds a ball.
        real_weights: (m,), weight of each real face in the recall; None = all alike.

    Returns:
        Two numbers in [0, 1]; (NaN, NaN) where a set has no k-th neighbour, that is with k or fewer faces.
    """
    if min(len(generated), len(real)) <= k:
        return math.nan, math.nan
    centre = real.double().mean(0)
    generated, real = generated.double() - centre, real.double() - centre
    precision = _inside(generated, real, _radii(real, k)).double().mean()
    hit = _inside(real, generated, _radii(generated, k)).double()
    weights = torch.ones_like(hit) if real_weights is None else real_weights.double()
    return float(precision), float((hit * weights).sum() / weights.sum())


def _radii(features: Tensor, k: int) -> Tensor:
    """Returns the distance of each feature to its k-th nearest other one, (n,)."""
    radii = torch.empty(len(features), dtype=features.dtype, device=features.device)
    for rows, distances in distance_blocks(features, features):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = torch.inf  # itself
        radii[rows] = distances.topk(k, largest=False).values[:, -1]
    return radii


def _inside(queries: Tensor, references: Tensor, radii: Tensor) -> Tensor:
    """Returns bool (n,): which queries lie in at least one ball round a reference."""
    found = [(distances <= radii).any(1) for _, distances in distance_blocks(queries, references)]
    return torch.cat(found)
