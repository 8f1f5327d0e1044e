"""Kernel distance (KID): the unbiased squared maximum mean discrepancy between two sets of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.random_streams import Stream


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """Returns (x·y / D + 1)³ for all pairs, (n, m) (Bińkowski et al. 2018, section 4)."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def squared_mmd(generated: Tensor, real: Tensor, generated_label: Tensor, real_label: Tensor, shares: Tensor) -> Tensor:
    """Returns the unbiased MMD² between two mixtures that hold the classes in the same shares.

    Pairs are averaged within each pair of classes, a face never with itself, and the averages enter with the product
    of the two shares. The estimate is therefore unbiased for mixtures in these shares whatever the class counts of the
    two samples are; with a single class it is the usual U-statistic.

    Args:
        generated: (n, D) float64.
        real: (m, D) float64.
        generated_label: int64 (n,), classes 0 … K − 1.
        real_label: int64 (m,).
        shares: (K,), sum 1; every class with a share needs two faces on either side.
    """
    first, second = (_pair_weights(label, shares) for label in (generated_label, real_label))
    within = (polynomial_kernel(generated, generated) * first[0]).sum() + (
        polynomial_kernel(real, real) * second[0]
    ).sum()
    return within - 2 * first[1] @ polynomial_kernel(generated, real) @ second[1]


def _pair_weights(label: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the weights of all pairs within one set, (n, n), and of each face, (n,)."""
    counts = torch.bincount(label, minlength=len(shares)).double()
    single = shares[label] / counts[label]
    pairs = single[:, None] * single
    same = label[:, None] == label
    # n² pairs of a class less its n pairs of a face with itself.
    correction = (counts / (counts - 1).clamp_min(1))[label]
    pairs = torch.where(same, pairs * correction[:, None], pairs)
    return pairs.fill_diagonal_(0), single


def kid_over_subsets(
    generated: Tensor,
    real: Tensor,
    generated_label: Tensor,
    real_label: Tensor,
    seed: int,
    subsets: int = 100,
    subset_size: int = 500,
) -> tuple[float, float]:
    """Returns mean and standard deviation of the unbiased MMD² over random subsets.

    Both sets are compared in the class shares of the generated one. Each subset holds about ``subset_size`` faces of
    either set, drawn per class without replacement; a class that has fewer gives all it has. The subsets follow from
    the seed and the order of the rows alone.

    Args:
        generated: features (n, D).
        real: features (m, D).
        generated_label: int64 (n,).
        real_label: int64 (m,), every class of the generated faces among them; faces of other classes are left out.
        seed: of the subsets.
        subsets: how many.
        subset_size: faces of either set in each.

    Returns:
        (NaN, NaN) where a class has fewer than two faces on either side: there is no unbiased estimate then.
    """
    classes, own = generated_label.unique(return_inverse=True)
    kept = torch.isin(real_label, classes)
    real, other = real[kept].double(), torch.searchsorted(classes, real_label[kept])
    generated = generated.double()
    counts = torch.bincount(own, minlength=len(classes))
    if min(int(counts.min()), int(torch.bincount(other, minlength=len(classes)).min())) < 2:
        return math.nan, math.nan
    shares = counts.double() / counts.sum()
    quota = (shares * subset_size).round().long().clamp_min(2).tolist()
    groups = [[(label == number).nonzero()[:, 0] for number in range(len(classes))] for label in (own, other)]
    estimates = []
    for subset in range(subsets):
        generator = torch.Generator().manual_seed(keyed_seed(seed, subset, Stream.KID_SUBSET))
        rows = [
            torch.cat(
                [
                    members[torch.randperm(len(members), generator=generator)[:size].to(members.device)]
                    for members, size in zip(group, quota, strict=True)
                ]
            )
            for group in groups
        ]
        estimates.append(squared_mmd(generated[rows[0]], real[rows[1]], own[rows[0]], other[rows[1]], shares))
    values = torch.stack(estimates)
    return float(values.mean()), float(values.std(correction=0))
