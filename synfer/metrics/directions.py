"""Whether higher or lower values of a metric are better: told once, for records, comparisons and W&B.

Imports no torch: comparing runs must start without it.
"""

from __future__ import annotations

from typing import Literal

Direction = Literal["higher", "lower"]

HIGHER = frozenset(
    {
        *("accuracy", "f1", "recall", "precision", "agreement", "found", "repaired", "psnr", "gain", "score"),
        *("ccc", "pearson", "sagr", "overlap", "uar", "war"),
    }
)
"""Words in the names of metrics whose higher values are better."""

LOWER = frozenset(
    {
        *("loss", "ece", "frechet", "fid", "kid", "mae", "mse", "rmse"),
        *("error", "harmed", "copies", "closer", "divergence", "gap"),
    }
)
"""Words in the names of metrics whose lower values are better."""

LOWER_SCORE = frozenset({"score", "lower"})
"""Both words are in the name of a user's score whose lower values are better."""

NEITHER = frozenset(
    {
        *("temperature", "rows", "faces", "std", "nearest", "norm", "ratio", "share", "imbalance", "per"),
        *("kl", "logit", "weight"),
        *("made", "discarded", "kept", "seconds", "similarity"),
    }
)
"""Words in the names of metrics that are neither good nor bad, whatever their other words say."""


def words_of(metric: str) -> frozenset[str]:
    """Returns the words of a metric's own name: of ``test/judge_recall/happy`` "judge" and "recall".

    What follows a second slash (a class, a voter, a feature extractor) says nothing about the metric.
    """
    parts = metric.split("/")
    return frozenset(parts[min(1, len(parts) - 1)].split("_"))


def direction(metric: str) -> Direction | None:
    """Returns which values of a metric are better; None where neither are, or nobody knows: such a metric has no best.

    Args:
        metric: name as it is logged, such as ``val/ece_uncalibrated``.
    """
    words = words_of(metric)
    if words >= LOWER_SCORE:
        return "lower"
    higher, lower = bool(words & HIGHER), bool(words & LOWER)
    if words & NEITHER or higher == lower:
        return None
    return "higher" if higher else "lower"


def better(metric: str, first: float, second: float) -> float | None:
    """Returns the better of two values of a metric; None where it has no better ones."""
    wanted = direction(metric)
    if wanted is None:
        return None
    return max(first, second) if wanted == "higher" else min(first, second)


def is_known(metric: str) -> bool:
    """Whether this table says anything of a metric, if only that it is neither good nor bad."""
    return bool(words_of(metric) & (HIGHER | LOWER | NEITHER))
