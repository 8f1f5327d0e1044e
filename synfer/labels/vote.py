"""The label vote of SynFER (arXiv 2410.09865): several classifiers decide what a face shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.faces.expressions import map_label_space
from synfer.labels.tie_break import argmax_with_tie_break


@dataclass(frozen=True)
class VoteOutcome:
    """Result of a vote on n faces.

    Attributes:
        soft_label: float (n, K), rows sum to 1.
        agreed: bool (n,): more than half of the voters saw the intended expression.
        kept: bool (n,).
        confidence: float (n,): mean probability of the final top class.
    """

    soft_label: Tensor
    agreed: Tensor
    kept: Tensor
    confidence: Tensor


def map_votes(probabilities: Tensor, voter_space: Sequence[str], space: Sequence[str], voter: str) -> Tensor:
    """Returns a voter's probabilities over another label space, by name: (n, K), rows sum to 1.

    Classes that ``space`` does not know are left out and the others renormalised; a face of which the voter sees only
    such classes counts all others alike.

    Args:
        probabilities: float (n, k).
        voter_space: the voter's k names.
        space: the K names that are wanted.
        voter: its name, for the error.

    Raises:
        ValueError: the voter lacks a class of ``space``.
    """
    columns = map_label_space(voter_space, space)
    if (columns < 0).any():
        missing = list(space)[int((columns < 0).argmax())]
        raise ValueError(f"{voter} does not know '{missing}': it has {list(voter_space)}, expected {list(space)}")
    mapped = probabilities.float()[:, torch.from_numpy(columns).to(probabilities.device)].clamp_min(1e-12)
    return mapped / mapped.sum(1, keepdim=True)


def mean_vote(probabilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the ensemble's probabilities (n, K), rows sum to 1.

    Args:
        probabilities: float (V, n, K).
        weights: reliability of each voter in each class, ≥ 0, (V, K); None = the plain mean.

    Raises:
        ValueError: no voter, or weights of another shape or without any voter for a class.
    """
    if probabilities.ndim != 3 or len(probabilities) == 0:
        raise ValueError(f"label vote: found votes of shape {tuple(probabilities.shape)}, expected (V ≥ 1, n, K)")
    if weights is None:
        return probabilities.mean(0)
    shape = (probabilities.shape[0], probabilities.shape[2])
    if tuple(weights.shape) != shape or bool((weights < 0).any()) or bool((weights.sum(0) <= 0).any()):
        raise ValueError(
            f"label vote: found weights of shape {tuple(weights.shape)} for votes {tuple(probabilities.shape)}, "
            f"expected {shape}, each ≥ 0 and above 0 for some voter of each class"
        )
    weighted = (probabilities * (weights / weights.sum(0))[:, None]).sum(0).clamp_min(1e-12)
    return weighted / weighted.sum(1, keepdim=True)


def vote(
    probabilities: Tensor,
    intended: Tensor,
    soft: bool = True,
    discard_below: float | Tensor = 0.0,
    weights: Tensor | None = None,
) -> VoteOutcome:
    """Votes on each face.

    Where more than half of the voters find the intended expression more probable than any other, the intended label
    stays, one-hot. Otherwise (ties among voters, and of one voter's classes, included) the label becomes the mean of
    the voters' probabilities.

    Args:
        probabilities: float (V, n, K), V ≥ 1 voters, rows sum to 1.
        intended: int64 (n,).
        soft: keep the mean as a soft label; False = its most probable class, one-hot (of equal ones the intended).
        discard_below: faces are discarded whose mean probability of the final top class is smaller; a number or (n,).
        weights: reliability of each voter in each class, (V, K): the mean is a weighted one.

    Raises:
        ValueError: no voter, or weights that do not fit.
    """
    classes = probabilities.shape[-1]
    mean = mean_vote(probabilities, weights)
    keep_label = F.one_hot(intended, classes).to(mean.dtype)
    others = probabilities.masked_fill(keep_label.bool(), -1.0).amax(2)
    for_intended = ((probabilities * keep_label).sum(2) > others).sum(0)
    agreed = for_intended * 2 > len(probabilities)
    rectified = mean if soft else F.one_hot(argmax_with_tie_break(mean, intended), classes).to(mean.dtype)
    soft_label = keep_label.where(agreed[:, None], rectified)
    confidence = mean.gather(1, soft_label.argmax(1, keepdim=True))[:, 0]
    return VoteOutcome(soft_label, agreed, confidence >= discard_below, confidence)
