"""Rules that turn a row's old label and its voters' probabilities into a new label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_DECONVOLUTION_STEPS = 30


def blend_labels(mean: Tensor, old: Tensor, old_weight: float) -> Tensor:
    """Returns w · onehot(old) + (1 − w) · mean: (n, K), rows sum to 1.

    Args:
        mean: the voters' probabilities, (n, K).
        old: int64 (n,).
        old_weight: w in [0, 1].
    """
    return old_weight * F.one_hot(old, mean.shape[1]).to(mean.dtype) + (1 - old_weight) * mean


def shift_prior(votes: Tensor, old: Tensor, prior: Tensor) -> Tensor:
    """Returns what the voters would say if the classes were as frequent as in ``prior``: shape of ``votes``.

    p'(c | face) ∝ p(c | face) · prior(c) / share of c among the old labels (Saerens et al., Neural Computation 2002).
    Labels that were made by searching for the name of an expression are spread far more evenly than what the faces
    show, and whoever learned from them sees rare expressions too often.

    Args:
        votes: probabilities, (..., n, K), of voters that learned from labels distributed like the old ones.
        old: int64 (n,).
        prior: how frequent the classes are, > 0, (K,), in any unit.
    """
    # One pseudo-count: a class that no row carries keeps a finite weight.
    share = torch.bincount(old, minlength=votes.shape[-1]).to(votes).clamp_min(1)
    shifted = votes * (prior.to(votes) / share)
    return shifted / shifted.sum(-1, keepdim=True).clamp_min(1e-12)


def add_label_evidence(mean: Tensor, old: Tensor) -> Tensor:
    """Returns p(true class | face, old label), the old label as one more witness: (n, K), rows sum to 1.

    p(c | face, old) ∝ p(c | face) · p(old | c), where p(old | c) is counted from all rows, each shared out between the
    classes by the voters: one step of expectation maximisation for a witness of unknown reliability (Dawid and Skene
    1979). More steps would make the old labels explain themselves.

    Args:
        mean: the voters' probabilities, (n, K).
        old: int64 (n,).
    """
    given = F.one_hot(old, mean.shape[1]).to(mean.dtype)
    witness = mean.T @ given
    witness = witness / witness.sum(1, keepdim=True).clamp_min(1e-12)
    posterior = (mean * witness[:, old].T).clamp_min(1e-12)
    return posterior / posterior.sum(1, keepdim=True)


def noise_transition(mean: Tensor, old: Tensor, smoothing: float = 1.0) -> Tensor:
    """Estimates T[true, old] = p(old label | true class) without ground truth: (K, K), rows sum to 1.

    Confident learning (Northcutt et al., JAIR 2021): a row counts as truly class c where the voters, who did not see
    its label, give c at least the mean probability they give c on rows labelled c; the most probable of such classes
    is taken, and rows without any are left out.

    Args:
        mean: out-of-fold probabilities of the voters, (n, K).
        old: int64 (n,).
        smoothing: pseudo-count of each cell, > 0.
    """
    classes = mean.shape[1]
    given = F.one_hot(old, classes).to(mean.dtype)
    threshold = (given * mean).sum(0) / given.sum(0).clamp_min(1)
    threshold = torch.where(given.sum(0) > 0, threshold, torch.inf)
    confident = torch.where(mean >= threshold, mean, -1.0)
    counted = confident.max(1).values >= 0
    joint = F.one_hot(confident.argmax(1)[counted], classes).to(mean.dtype).T @ given[counted]
    # A class that nobody is confident of keeps its labels.
    joint = joint + smoothing * (1 / classes + torch.eye(classes, dtype=mean.dtype, device=mean.device))
    return joint / joint.sum(1, keepdim=True)


def correct_by_transition(mean: Tensor, old: Tensor, transition: Tensor) -> Tensor:
    """Returns p(true class | face, old label): (n, K), rows sum to 1.

    Voters that learned from noisy labels tell p(old label | face) = Σ_c q(c)·T[c, old]. That is undone first, by
    expectation maximisation for q (the deconvolution of Richardson 1972 and Lucy 1974, which keeps q a distribution);
    then the label itself is taken as evidence: p(c | face, old) ∝ q(c)·T[c, old].

    Args:
        mean: the voters' probabilities, (n, K).
        old: int64 (n,).
        transition: T[true, old], (K, K), rows sum to 1.
    """
    q = torch.full_like(mean, 1 / mean.shape[1])
    for _ in range(_DECONVOLUTION_STEPS):
        q = q * ((mean / (q @ transition).clamp_min(1e-12)) @ transition.T)
        q = q / q.sum(1, keepdim=True).clamp_min(1e-12)
    posterior = (q * transition[:, old].T).clamp_min(1e-12)
    return posterior / posterior.sum(1, keepdim=True)
