"""How often each class is drawn among the real rows, by the name of a sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules.rows.sample_table import SampleTable
from datamodules.setting_range import check_range
from synfer.labels.class_shares import CLASS_SHARES, tempered_shares


@dataclass(frozen=True)
class ClassSampling:
    """Which sampler draws the real rows (formulas and sources: ``synfer/labels/class_shares.py``).

    Attributes:
        kind: "none", as the rows are; "balanced", each class equally often; "square_root", ∝ √n; "effective_number"
            (Cui et al. 2019, arXiv 1901.05555); "repeat_factor" (Gupta et al. 2019, arXiv 1908.03195).
        beta: of "effective_number", in [0, 1): 0 = as the rows are, towards 1 = balanced.
        threshold: of "repeat_factor", share in (0, 1] below which a class is repeated; null = 1 / K, an even share.

    Raises:
        ValueError: an unknown kind, or a number outside its range.
    """

    kind: Literal["none", "balanced", "square_root", "effective_number", "repeat_factor"] = "none"
    beta: float = 0.999
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_range("class_sampling.kind", self.kind, self.kind in CLASS_SHARES, f"one of {', '.join(CLASS_SHARES)}")
        check_range("class_sampling.beta", self.beta, 0 <= self.beta < 1, "a number in [0, 1)")
        limit = self.threshold
        check_range("class_sampling.threshold", limit, limit is None or 0 < limit <= 1, "a share in (0, 1], or null")

    def check_beside(self, class_balance: float) -> None:
        """Refuses a second sampler of the classes.

        Raises:
            ValueError: ``class_balance`` is above 0 as well.
        """
        expected = f"data.class_balance=0 beside it, not {class_balance}: only one can draw the classes"
        check_range("class_sampling.kind", self.kind, self.kind == "none" or class_balance == 0, expected)

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """Returns the share of each class among the draws, float64 (K,), of rows per class (K,)."""
        return CLASS_SHARES[self.kind](counts, self.beta, self.threshold)


def drawn_shares(table: SampleTable, class_balance: float, sampling: ClassSampling) -> np.ndarray:
    """Returns how often each class is drawn among the real rows, float64 (K,), whichever setting says so."""
    counts = table.count_per_class()
    return sampling.shares(counts) if sampling.kind != "none" else tempered_shares(counts, class_balance)


def label_shares(table: SampleTable, shares: np.ndarray) -> np.ndarray:
    """Returns the mean soft label of rows that are drawn with these shares of the classes, float64 (K,).

    Of one-hot labels these are the shares themselves; soft ones give a part of each row to other classes.
    """
    mean = np.zeros((len(shares), len(shares)))
    for c in np.unique(table.label):
        mean[c] = table.soft_label[table.label == c].mean(0, dtype=np.float64)
    return shares @ mean
