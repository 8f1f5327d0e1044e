"""How well valence and arousal are rated: concordance, correlation, error and sign."""

from __future__ import annotations

import torch
from torch import Tensor

from synfer.faces.affect import AFFECT
from synfer.metrics.float64_states import Float64States

CONSTANT = 1e-10
"""A variance below this is none: that of numbers in [-1, 1] whose standard deviation is below 0.00001. Sums in float64
cannot tell less from zero."""


class AffectScores(Float64States):
    """Scores of valence and of arousal over all rows of all ranks, from sums: the same however rows fall into batches.

    - ``ccc``: concordance correlation, 2·cov / (var + var + (difference of the means)²) with moments divided by n (Lin
      1989, Biometrics 45, 255-268), in [-1, 1]; what ABAW ranks by is ``ccc_mean``, of valence and arousal (P_VA).
    - ``pearson``: correlation, in [-1, 1].
    - ``rmse``: root of the mean squared error, in [0, 2].
    - ``sagr``: share of rows whose rating has the sign of the truth (sign agreement; Nicolaou et al. 2011, IEEE Trans.
      Affective Computing 2, 92-105); 0 is a sign of its own, as in AffectNet's paper.

    Where the ratings or the truth are constant (a variance below 1e-10), neither says anything of the other: ``ccc``
    and ``pearson`` are 0, also if both are the same constant. Each of the two counts the rows whose truth is known;
    one that is known of no row has no scores.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Rows: n, Σx, Σy, Σx², Σy², Σxy, Σ(x − y)², rows of one sign. Columns: valence, arousal.
        self.add_state("sums", torch.zeros(8, len(AFFECT), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, rated: Tensor, truth: Tensor) -> None:
        """Takes in n rows; n may be 0.

        Args:
            rated: by the network, float (n, 2).
            truth: float (n, 2), NaN where it is not known.
        """
        known = ~truth.isnan()
        x = torch.where(known, rated.detach().to(self.sums.dtype), 0.0)
        y = torch.where(known, truth.to(self.sums.dtype), 0.0)
        same_sign = (x.sign() == y.sign()) & known
        terms = (known, x, y, x * x, y * y, x * y, (x - y).square(), same_sign)
        self.sums += torch.stack([term.to(self.sums.dtype).sum(0) for term in terms])

    def compute(self) -> dict[str, float]:
        """Returns the scores by name, such as ``ccc/valence``, and ``ccc_mean`` where both have one (a collective)."""
        sums = self.sums.cpu().double()
        scores: dict[str, float] = {}
        for column, name in enumerate(AFFECT):
            if sums[0, column]:
                scores |= {f"{score}/{name}": value for score, value in _scores(sums[:, column]).items()}
        if all(f"ccc/{name}" in scores for name in AFFECT):
            scores["ccc_mean"] = sum(scores[f"ccc/{name}"] for name in AFFECT) / len(AFFECT)
        return scores


def _scores(sums: Tensor) -> dict[str, float]:
    """Returns the scores of one of the two, by its eight sums, the first of them above 0."""
    n, *totals = sums.tolist()
    x, y, xx, yy, xy, error, same_sign = (total / n for total in totals)
    spread_x, spread_y, covariance = xx - x * x, yy - y * y, xy - x * y
    ccc = pearson = 0.0
    if spread_x >= CONSTANT and spread_y >= CONSTANT:
        ccc = 2 * covariance / (spread_x + spread_y + (x - y) ** 2)
        pearson = min(max(covariance / (spread_x * spread_y) ** 0.5, -1.0), 1.0)
    return {"ccc": ccc, "pearson": pearson, "rmse": error**0.5, "sagr": same_sign}
