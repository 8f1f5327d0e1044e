"""What two views of a face, or its hidden patches, should have to do with each other.

Embeddings are rows of any length; each loss normalises them itself, in float32 under autocast too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.foundation.default_ranks import default_ranks
from synfer.representation.full_precision import in_full_precision
from synfer.representation.gathered import gathered_rows


@in_full_precision
def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Returns the NT-Xent loss (Chen et al. 2020, arXiv 2002.05709, equation 1), the mean over 2·B anchors.

    Each view of each face of this rank finds the other view of the same face among all other views of all ranks::

        ℓ(i, j) = −log( exp(s_ij / τ) / Σ_{k ≠ i} exp(s_ik / τ) ),   s = cosine similarity

    A collective where there are several ranks; their mean is the loss of the joined batch.

    Args:
        first: embeddings (B, D) of one view of each face, the same B on each rank.
        second: of the other view, (B, D).
        temperature: τ > 0.

    Returns:
        A scalar, float32 (float64 of float64 embeddings).
    """
    first, second = _normalised(first), _normalised(second)
    all_first, all_second = gathered_rows(first), gathered_rows(second)
    count, total = len(first), len(all_first)
    anchors, candidates = torch.cat([first, second]), torch.cat([all_first, all_second])
    logits = anchors @ candidates.T / temperature
    mine = torch.arange(count, device=first.device) + default_ranks(None, None)[1] * count
    itself = torch.cat([mine, mine + total])
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    return F.cross_entropy(logits, torch.cat([mine + total, mine]))


@in_full_precision
def momentum_contrast(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """Returns MoCo v3's loss of queries and the keys of the other view (Chen et al. 2021, arXiv 2104.02057).

    InfoNCE over the keys of all ranks, times 2τ, which keeps the size of the gradient apart from the temperature. Keys
    get no gradient. A collective where there are several ranks.

    Args:
        query: (B, D) of the network that learns, the same B on each rank.
        key: (B, D) of its moving average.
        temperature: τ > 0.
    """
    query, key = _normalised(query), _normalised(key.detach())
    with torch.no_grad():
        keys = gathered_rows(key)
    mine = torch.arange(len(query), device=query.device) + default_ranks(None, None)[1] * len(query)
    return 2 * temperature * F.cross_entropy(query @ keys.T / temperature, mine)


def cosine_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Returns BYOL's loss 2 − 2·cos(prediction, target), the mean over rows (Grill et al. 2020, arXiv 2006.07733).

    Args:
        prediction: (B, D) of the network that learns.
        target: (B, D) of its moving average, which gets no gradient.
    """
    return 2 - 2 * (_normalised(prediction) * _normalised(target.detach())).sum(1).mean()


def hidden_patch_loss(prediction: Tensor, target: Tensor, hidden: Tensor, normalise: bool = True) -> Tensor:
    """Returns the mean squared error over hidden patches (He et al. 2022, arXiv 2111.06377).

    Args:
        prediction: (B, L, P) numbers of each patch.
        target: pixels of each patch, (B, L, P).
        hidden: bool (B, L); the same number in each row.
        normalise: whether each patch's target has mean 0 and variance 1, as the paper's best variant has.
    """
    target, prediction = _at_least_float32(target), _at_least_float32(prediction)
    if normalise:
        mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    return ((prediction - target) ** 2).mean(-1)[hidden].mean()


def embedding_spread(embedding: Tensor) -> Tensor:
    """Returns how far embeddings are from being all the same: 1 = spread evenly, 0 = collapsed.

    √D times the mean over D columns of the standard deviation of the normalised rows of all ranks. A collective.

    Args:
        embedding: (B, D).
    """
    with torch.no_grad():
        rows = gathered_rows(_normalised(embedding.detach()))
        return rows.std(0, unbiased=False).mean() * rows.shape[1] ** 0.5


def _normalised(rows: Tensor) -> Tensor:
    return F.normalize(_at_least_float32(rows), dim=1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


@in_full_precision
def pair_contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Returns the symmetric InfoNCE loss of pairs, as CLIP's (Radford et al., ICML 2021), over the rows of all ranks.

    Pairs whose second rows are the same, as those of two faces with one caption, are all right answers: the target is
    spread evenly over them. A collective where there are several ranks; their mean is the loss of the joined batch.

    Args:
        first: (B, D), the same B on each rank.
        second: (B, D).
        temperature: τ > 0.
    """
    first, second = _normalised(first), _normalised(second)
    all_first, all_second = gathered_rows(first), gathered_rows(second)
    with torch.no_grad():
        same = (second @ all_second.T > 1 - 1e-5).to(first.dtype)
        mine = torch.arange(len(first), device=first.device) + default_ranks(None, None)[1] * len(first)
        same = same.scatter(1, mine[:, None], 1.0)  # whatever rounding says
        target = same / same.sum(1, keepdim=True)
    forth = F.cross_entropy(first @ all_second.T / temperature, target)
    back = F.cross_entropy(second @ all_first.T / temperature, target)
    return (forth + back) / 2
