"""Metrics as people read them: sorted, and rounded to what they can mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

HEADS = ("accuracy", "mean_class_accuracy", "macro_f1", "loss")
"""Last parts of the names that come first, in this order."""

DIGITS = 4
"""Digits of a number that count."""


def number_text(value: float) -> str:
    """Returns a number with four digits that count, whole ones from 10 on as they are: 0.7100, 12.31, 40, 40210."""
    if not math.isfinite(value):
        return "?"
    if (abs(value) >= 10 and value == int(value)) or abs(value) >= 10**DIGITS:
        return f"{value:.0f}"
    if 0.001 <= abs(value) < 1:  # shares, below each other
        return f"{value:.{DIGITS}f}"
    return f"{value:#.{DIGITS}g}".removesuffix(".") if value else "0"


def in_order(names: Iterable[str]) -> list[str]:
    """Returns metrics' names: main figures first, then those of the whole set, then those of single classes.

    Names are sorted within each of these; ``test/recall/fear`` belongs to a single class, ``test/ece`` to the set.
    """

    def place(name: str) -> tuple[int, int, str]:
        parts = name.split("/")
        head = HEADS.index(parts[-1]) if len(parts) == 2 and parts[-1] in HEADS else len(HEADS)
        return len(parts) > 2, head, name

    return sorted(names, key=place)


def metric_lines(metrics: Mapping[str, float]) -> list[str]:
    """Returns one line for each metric, names to the left and numbers in a column; [] of none."""
    names = in_order(metrics)
    width = max(map(len, names), default=0)
    return [f"  {name.ljust(width)}  {number_text(metrics[name])}" for name in names]
