"""How much each class weighs in the loss where the rows of some classes are few: functions of their counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from synfer.foundation.validate import check_setting
from synfer.labels.class_shares import effective_number


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """Returns N / (K·n) of each class, float64 (K,): the mean over the rows is 1; 0 for a class without a row."""
    return np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0.0)


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns weights ∝ 1 / E_n, float64 (K,), whose mean over the rows is 1; 0 for a class without a row.

    The class-balanced loss of Cui et al. 2019, arXiv 1901.05555, but for a constant: there the weights of the classes
    add up to their number, which makes the loss of a long tail smaller, and with it the step of plain SGD.

    Args:
        counts: rows per class, (K,).
        beta: β in [0, 1): 0 weighs all classes alike, towards 1 is inverse frequency.
    """
    has_rows = counts > 0
    weight = np.where(has_rows, 1 / np.where(has_rows, effective_number(counts, beta), 1.0), 0.0)
    return weight * counts.sum() / (weight * counts).sum()


CLASS_WEIGHTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "balanced": lambda counts, beta: balanced_weights(counts),
    "effective_number": effective_number_weights,
}
"""Name of ``model.class_weights`` → weights of (rows per class, β)."""


def check_class_weights(class_weights: list[float] | str | None, label_space: Sequence[str]) -> None:
    """Checks ``model.class_weights``: a name of :data:`CLASS_WEIGHTS`, numbers, or None.

    Raises:
        ValueError: it is none of these, or not a number ≥ 0 for each class.
    """
    if isinstance(class_weights, list):
        fine = len(class_weights) == len(label_space) and min(class_weights, default=-1) >= 0 and sum(class_weights) > 0
        expected = f"{len(label_space)} numbers ≥ 0 in the order {', '.join(label_space)}"
        check_setting(fine, "class_weights", class_weights, expected)
    elif class_weights is not None:
        names = ", ".join(f"'{name}'" for name in CLASS_WEIGHTS)
        check_setting(
            class_weights in CLASS_WEIGHTS, "class_weights", class_weights, f"null, {names} or a list of numbers"
        )
