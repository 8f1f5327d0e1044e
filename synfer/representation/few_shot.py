"""Few-shot learning on frozen features: which faces are shown, and three classifiers of a few of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.foundation.counter_based_random import keyed_uniform, keys_of
from synfer.foundation.random_streams import Stream

HeadName = Literal["linear", "prototype", "tip_adapter"]


def draw_shots(
    label: np.ndarray, sample_id: Sequence[str], names: Sequence[str], shots: int, seed: int, draw: int
) -> np.ndarray:
    """Returns the rows of one draw: so many of each class, class by class, int64 (K · shots,).

    A function of ids, seed and draw alone, whatever the order of the rows and the machine. Fewer shots of a draw are a
    part of more.

    Args:
        label: int64 (N,); −1 is never drawn.
        sample_id: N ids.
        names: of the K classes.
        shots: of each class, ≥ 1.
        seed: of all draws.
        draw: which of them, from 0.

    Raises:
        ValueError: a class has fewer rows than that.
    """
    order = keyed_uniform(keys_of(sample_id), 1, seed, Stream.SHOTS, draw)[:, 0]
    chosen = []
    for index, name in enumerate(names):
        rows = np.flatnonzero(label == index)
        if len(rows) < shots:
            raise ValueError(
                f"few-shot: found {len(rows)} training faces of {name}, expected at least {shots} (model.shots)"
            )
        chosen.append(rows[np.argsort(order[rows], kind="stable")[:shots]])
    return np.concatenate(chosen)


def prototype_logits(shots: Tensor, label: Tensor, features: Tensor, num_classes: int) -> Tensor:
    """Returns cosines between features and the mean of each class (Snell et al. 2017, arXiv 1703.05175), (M, K).

    Args:
        shots: unit rows (n, D).
        label: int64 (n,), each class at least once.
        features: unit rows (M, D).
        num_classes: K.
    """
    members = F.one_hot(label, num_classes).to(shots.dtype)
    means = (members.T @ shots) / members.sum(0)[:, None]
    return features @ F.normalize(means, dim=1).T


def tip_adapter_logits(
    shots: Tensor, label: Tensor, features: Tensor, prior: Tensor, alpha: float = 1.0, beta: float = 5.5
) -> Tensor:
    """Returns what a cache of shots adds to a classifier that needs none (Tip-Adapter, arXiv 2111.03930), (M, K).

    logits = α · exp(−β (1 − f·Fᵀ)) · L + prior, with the labels L of the shots; nothing is trained. The cache's votes
    are the mean over a class's shots, so that α means the same for 1 and 16 of them.

    Args:
        shots: F, unit rows (n, D).
        label: int64 (n,).
        features: f, unit rows (M, D).
        prior: (M, K) logits: of a CLIP model its zero-shot ones.
        alpha: weight of the cache.
        beta: how much nearer shots count.
    """
    members = F.one_hot(label, prior.shape[1]).to(shots.dtype)
    affinity = (-beta * (1 - features @ shots.T)).exp()
    return alpha * affinity @ (members / members.sum(0).clamp_min(1)) + prior


def linear_logits(shots: Tensor, label: Tensor, features: Tensor, num_classes: int, decay: float = 1e-3) -> Tensor:
    """Returns the logits of a linear layer that was trained on the shots until it stands still, (M, K).

    Multinomial logistic regression with L2 penalty, mean cross-entropy + decay/2 · ‖W‖², by L-BFGS in float64. Features
    are centred at the mean of the shots and scaled by one number to a mean length of 1.

    Args:
        shots: (n, D).
        label: int64 (n,).
        features: (M, D).
        num_classes: K.
        decay: > 0.
    """
    shots, features = shots.double(), features.double()
    centre = shots.mean(0)
    scale = (shots - centre).square().sum(1).mean().sqrt().clamp_min(1e-12)
    shots, features = (shots - centre) / scale, (features - centre) / scale
    # The solution lies in the span of the shots: as many numbers per class as there are shots will do.
    basis = torch.linalg.qr(shots.T)[0] if len(shots) < shots.shape[1] else None
    inside = shots if basis is None else shots @ basis
    # A test runs under inference mode, in which nothing learns and what it has made can take no part in learning.
    with torch.inference_mode(False), torch.enable_grad():
        inside, label = inside.clone(), label.clone()
        weight = inside.new_zeros(num_classes, inside.shape[1], requires_grad=True)
        bias = inside.new_zeros(num_classes, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            loss = F.cross_entropy(inside @ weight.T + bias, label) + decay / 2 * weight.square().sum()
            loss.backward()
            return loss

        solver.step(closure)
    whole = weight.detach() if basis is None else weight.detach() @ basis.T
    return features @ whole.T + bias.detach()


@dataclass(frozen=True)
class Shots:
    """Faces that a head may learn from, and those that it is to name.

    Attributes:
        shots: unit rows (n, D).
        label: int64 (n,).
        features: unit rows (M, D).
        prior: zero-shot logits (M, K) where the network has some; None = it has none.
        num_classes: K.
    """

    shots: Tensor
    label: Tensor
    features: Tensor
    prior: Tensor | None
    num_classes: int

    def _prototypes(self) -> Tensor:
        return prototype_logits(self.shots, self.label, self.features, self.num_classes)

    def logits(self, head: HeadName, decay: float = 1e-3, alpha: float = 1.0, beta: float = 5.5) -> Tensor:
        """Returns the logits (M, K) of one head; a Tip-Adapter without text begins from the prototypes.

        Raises:
            ValueError: an unknown head.
        """
        heads: Mapping[str, Callable[[], Tensor]] = {
            "linear": lambda: linear_logits(self.shots, self.label, self.features, self.num_classes, decay),
            "prototype": self._prototypes,
            "tip_adapter": lambda: tip_adapter_logits(
                self.shots,
                self.label,
                self.features,
                self._prototypes() if self.prior is None else self.prior,
                alpha,
                beta,
            ),
        }
        if head not in heads:
            raise ValueError(f"few-shot: found the head '{head}', expected one of {', '.join(heads)}")
        return heads[head]()


def mean_with_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Returns the mean of draws and the half width of its two-sided t-interval; None of a single one.

    It tells how much the choice of the shots matters, not how far another test set would be.

    Args:
        values: one per draw.
        confidence: of the interval.
    """
    from scipy.special import stdtrit

    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2:
        return float(numbers.mean()), None
    quantile = float(stdtrit(len(numbers) - 1, (1 + confidence) / 2))
    return float(numbers.mean()), quantile * float(numbers.std(ddof=1)) / len(numbers) ** 0.5
