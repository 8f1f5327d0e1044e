"""More of the expressions that a classifier does not recognise yet.

To make what the learner finds hard is the idea of feedback-guided synthesis (arXiv 2310.00158) and of deliberate
practice (arXiv 2502.15588). Both steer the sampling of each face by the classifier's output; here only how often each
expression is made follows it, so that any synthesiser can serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeedbackSettings:
    """How strongly shares follow recalls.

    Attributes:
        power: p > 0: the need of an expression is (1 − recall)^p; more = only the worst ones count.
        floor: in (0, 1]: this part of the faces is spread evenly, so that no expression is forgotten; 1 = even.

    Raises:
        ValueError: a value out of range.
    """

    power: float = 1.0
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise ValueError(f"synthesis.feedback.power: found {self.power}, expected a number above 0")
        if not 0 < self.floor <= 1:
            raise ValueError(f"synthesis.feedback.floor: found {self.floor}, expected a number in (0, 1]")


def feedback_shares(
    recalls: Mapping[str, float], wanted: Sequence[str], settings: FeedbackSettings
) -> dict[str, float]:
    """Returns the share of each wanted expression among the faces to make; the shares sum to 1.

    With the need d_c = (1 − recall_c)^power of K expressions, the share of c is (1 − floor) · d_c / Σ d + floor / K. An
    expression without a recall (no validation row shows it) has the mean need of the others; where all are recognised,
    the shares are even.

    Args:
        recalls: recall in [0, 1] of those expressions that have one; at least one of the wanted.
        wanted: expressions to make.
        settings: power and floor.
    """
    names = list(dict.fromkeys(wanted))
    need = np.array([(1 - recalls[name]) ** settings.power if name in recalls else np.nan for name in names])
    need = np.where(np.isnan(need), np.nanmean(need), need)
    total = need.sum()
    share = need / total if total > 0 else np.full(len(names), 1 / len(names))
    share = (1 - settings.floor) * share + settings.floor / len(names)
    return dict(zip(names, (share / share.sum()).tolist(), strict=True))
