"""How near probabilities come to soft labels: of faces that show several expressions, or that annotators saw apart."""

from __future__ import annotations

import torch
from torch import Tensor

from synfer.metrics.float64_states import Float64States

_SOFT_BELOW = 0.999  # a largest share above this is one expression
_HALF = 1e-3  # how near to a half both shares of a pair are


class SoftLabelScores(Float64States):
    """Scores over the rows with a soft label, of all ranks, from sums; rows of one expression do not count.

    - ``soft_label_divergence``: mean Kullback-Leibler divergence of probabilities from the soft label, ≥ 0, in nats.
    - ``soft_label_overlap``: mean of Σ min(share, probability), in [0, 1] (the intersection of Geng 2016, Label
      Distribution Learning, IEEE TKDE 28, 1734-1748).
    - ``pair_accuracy``: of faces that show two expressions alike (RAF-DB compound), the share whose two most probable
      expressions are those two; ``pair_mean_accuracy``: its mean over the pairs that occur.

    Args:
        num_classes: K.
    """

    full_state_update = False
    sums: Tensor
    pairs: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")  # rows, divergence, overlap
        # Of each pair, by its classes: how many faces, and how many are right.
        self.add_state("pairs", torch.zeros(2, num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, soft_label: Tensor) -> None:
        """Takes in n rows; n may be 0.

        Args:
            probabilities: float (n, K), rows sum to 1.
            soft_label: float (n, K), rows sum to 1.
        """
        if not len(soft_label):
            return
        soft = soft_label.max(1).values < _SOFT_BELOW
        seen, shares = probabilities[soft].to(self.sums.dtype), soft_label[soft].to(self.sums.dtype)
        divergence = torch.special.entr(shares).sum().neg() - (shares * seen.clamp_min(1e-12).log()).sum()
        overlap = torch.minimum(seen, shares).sum()
        self.sums += torch.stack([soft.sum().to(self.sums.dtype), divergence, overlap])
        of_two = ((shares - 0.5).abs() < _HALF).sum(1) == 2
        if shares.shape[1] < 2 or not bool(of_two.any()):
            return
        shown = shares[of_two].topk(2, 1).indices.sort(1).values
        chosen = seen[of_two].topk(2, 1).indices.sort(1).values
        one = torch.ones(len(shown), dtype=self.pairs.dtype, device=self.pairs.device)
        right = (shown == chosen).all(1).to(self.pairs.dtype)
        for place, counted in enumerate((one, right)):
            self.pairs[place].index_put_((shown[:, 0], shown[:, 1]), counted, accumulate=True)

    def compute(self) -> dict[str, float]:
        """Returns the scores by name; none where there was no such row (a collective)."""
        rows, divergence, overlap = self.sums.cpu().double().tolist()
        scores: dict[str, float] = {}
        if rows:
            scores = {"soft_label_divergence": divergence / rows, "soft_label_overlap": overlap / rows}
        faces, right = self.pairs.cpu().double()
        if faces.any():
            scores["pair_accuracy"] = float(right.sum() / faces.sum())
            scores["pair_mean_accuracy"] = float((right / faces)[faces > 0].mean())
        return scores
