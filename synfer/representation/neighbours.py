"""Which expression a face shows, by those of the faces whose features are most like its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.representation.full_precision import in_full_precision


@in_full_precision
def neighbour_probabilities(
    features: Tensor,
    bank: Tensor,
    labels: Tensor,
    num_classes: int,
    neighbours: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Returns the weighted vote of the nearest faces of a bank (Wu et al. 2018, arXiv 1805.01978).

    A neighbour of cosine similarity s votes for its class with weight exp(s / τ).

    Args:
        features: (N, D) of the faces in question.
        bank: (M, D) of faces whose expression is known.
        labels: int64 (M,).
        num_classes: K.
        neighbours: how many vote, at most M.
        temperature: τ > 0.
        chunk: faces compared at a time; of memory alone.

    Returns:
        float32 (N, K), rows sum to 1.

    Raises:
        ValueError: the bank is empty.
    """
    if not len(bank):
        raise ValueError("nearest neighbours: found an empty bank, expected faces whose expression is known")
    bank, count = F.normalize(bank.float(), dim=1), min(neighbours, len(bank))
    found = [features.new_zeros(0, num_classes, dtype=torch.float32)]
    for part in F.normalize(features.float(), dim=1).split(chunk):
        similarity, nearest = (part @ bank.T).topk(count, dim=1)
        # The largest first: whatever the temperature, no weight overflows.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(part), num_classes, device=part.device).scatter_add_(1, labels[nearest], weight)
        found.append(votes / votes.sum(1, keepdim=True))
    return torch.cat(found)
