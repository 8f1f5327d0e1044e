"""How often each expression is to be made, from how often it occurs among the training rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

FEEDBACK = "feedback"
"""The plan whose shares follow the recalls of a training (:mod:`synfer.synthesis.feedback_shares`)."""

EVEN = "even"
"""The plan that asks for no counts."""


def _even(counts: np.ndarray, largest: float) -> np.ndarray:
    return np.ones_like(counts)


def _real(counts: np.ndarray, largest: float) -> np.ndarray:
    return counts


def _fill(counts: np.ndarray, largest: float) -> np.ndarray:
    return largest - counts


def _inverse(counts: np.ndarray, largest: float) -> np.ndarray:
    return 1 / counts


PLANS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    EVEN: _even,
    "real": _real,
    "fill": _fill,
    "inverse": _inverse,
}
"""Name of a plan → weights ≥ 0 of the wanted expressions, float64 (K,), from the training rows of each, float64 (K,),
and the rows of the largest class of all, wanted or not. A weight is in proportion to how often an expression is made.
"""


def check_plan(key: str, plan: str, *also: str) -> None:
    """Refuses a plan that nobody knows.

    Args:
        key: config key of the plan, for the message.
        plan: its name.
        also: names beside those of :data:`PLANS`.

    Raises:
        ValueError: names those that are known.
    """
    known = [*PLANS, *also]
    if plan not in known:
        hint = f" ({FEEDBACK} needs a training: synthesis.plan)" if plan == FEEDBACK else ""
        raise ValueError(f"{key}: found '{plan}', expected {', '.join(known[:-1])} or {known[-1]}{hint}")


def class_shares(plan: str, counts: Mapping[str, int], wanted: Sequence[str], key: str) -> dict[str, float]:
    """Returns the share of each wanted expression among the faces to make; the shares sum to 1.

    Args:
        plan: a name of :data:`PLANS`.
        counts: training rows of every expression of the data; "even" needs none.
        wanted: expressions to make.
        key: config key of the plan, for the messages.

    Raises:
        ValueError: an unknown plan, a wanted expression without a training row where the plan counts them, or nothing
            to fill up.
    """
    check_plan(key, plan)
    names = list(dict.fromkeys(wanted))
    if plan != EVEN:
        for name in names:
            if not counts.get(name):
                raise ValueError(
                    f"{key}={plan}: found no training row of '{name}', expected at least one of each expression that "
                    f"is made (leave it out of {_expressions_key(key)}, or {key}=even)"
                )
    own = np.array([counts.get(name, 0) for name in names], dtype=np.float64)
    weights = PLANS[plan](own, float(max(counts.values(), default=0)))
    if not weights.sum() > 0:
        raise ValueError(
            f"{key}={plan}: found {', '.join(f'{name} {int(n)}' for name, n in zip(names, own, strict=True))} training "
            "rows, expected an expression with fewer than the largest class: there is nothing to fill up"
        )
    return dict(zip(names, (weights / weights.sum()).tolist(), strict=True))


def missing_faces(counts: Mapping[str, int], wanted: Sequence[str]) -> int:
    """Returns how many faces bring every wanted expression up to the rows of the largest class."""
    return sum(max(counts.values()) - counts[name] for name in dict.fromkeys(wanted))


def shares_in_words(shares: Mapping[str, float]) -> str:
    """Returns the shares as a line of text: "fear 0.42, disgust 0.58"."""
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items())


def _expressions_key(key: str) -> str:
    return "data.synthesis_expressions" if key.startswith("data.") else "synthesis.expressions"
