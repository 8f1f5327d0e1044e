"""Which faces a set made ahead is to hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.setting_range import check_range
from synfer.faces.expressions import canonical_expression
from synfer.synthesis.class_shares import EVEN, check_plan, class_shares, missing_faces, shares_in_words
from synfer.synthesis.plan import EvenPlan, Plan
from synfer.synthesis.proportional_plan import ProportionalPlan

_FILL = "fill"


class PlannedSet:
    """How many faces of which expressions ``predict`` makes; shares follow the training rows unless they are even.

    Args:
        plan: ``data.synthesis_plan``, a name of :data:`synfer.synthesis.class_shares.PLANS`.
        count: ``data.synthesis_count``; None = as many as "fill" takes to bring every expression up to the largest.
        expressions: ``data.synthesis_expressions``.
        label_space: names of the data's expressions, among which those are; None = checked once they are known.

    Attributes:
        count: number of faces; None until :meth:`count_rows` where it follows the training rows.
        expressions: names to make.
        shares: share of each; None = in turn, or not counted yet.

    Raises:
        ValueError: an unknown plan, a count that does not fit it, or an expression outside the label space.
    """

    def __init__(
        self, plan: str, count: int | None, expressions: Sequence[str], label_space: Sequence[str] | None = None
    ) -> None:
        check_plan("data.synthesis_plan", plan)
        check_range("synthesis_count", count, count is None or count >= 1, "at least 1")
        if count is None and plan != _FILL:
            check_range("synthesis_count", count, False, "a number, or data.synthesis_plan=fill")
        self.plan, self.count = plan, count
        self.expressions = [canonical_expression(name) for name in expressions]
        if label_space is not None:  # before a folder is made, or weights are loaded
            self._check_names(label_space)
        self.shares: dict[str, float] | None = None

    def count_rows(self, class_counts: Callable[[], Mapping[str, int]]) -> int | None:
        """Fixes shares and count by the training rows, and returns the count; reads nothing for the even plan.

        Args:
            class_counts: returns the training rows of every expression of the data.

        Raises:
            ValueError: an expression without a training row, or nothing to fill up.
        """
        if self.plan == EVEN or self.shares is not None:
            return self.count
        counts = class_counts()
        self._check_names(list(counts))
        shares = class_shares(self.plan, counts, self.expressions, "data.synthesis_plan")
        if self.count is None:
            self.count = missing_faces(counts, self.expressions)
        self.shares = shares
        rank_zero_info(f"data.synthesis_plan={self.plan}: {self.count} faces, {shares_in_words(shares)}")
        return self.count

    def faces(self, label_space: Sequence[str], seed: int, done: np.ndarray | None) -> Plan:
        """Returns the list of faces.

        Args:
            label_space: names of the data's expressions.
            seed: of the run.
            done: sample ids that exist already and are left out.

        Raises:
            ValueError: an expression outside the label space is to be made.
            RuntimeError: the training rows have not been counted.
        """
        self._check_names(label_space)
        if self.count is None or (self.shares is None and self.plan != EVEN):
            raise RuntimeError("the training rows have not been counted: expected setup('predict') first")
        if self.shares is None:
            return EvenPlan(self.count, self.expressions, seed, done=done)
        return ProportionalPlan(self.count, self.shares, seed, done=done)

    def _check_names(self, label_space: Sequence[str]) -> None:
        unknown = [name for name in self.expressions if name not in label_space]
        if unknown:
            raise ValueError(f"data.synthesis_expressions: found '{unknown[0]}', expected some of {list(label_space)}")

    @property
    def record(self) -> dict[str, dict[str, object]]:
        """What a set's record says of the plan; nothing of the even one, as in all sets before there was another."""
        return {} if self.shares is None else {"plan": {"name": self.plan, "shares": self.shares}}

    @property
    def names(self) -> list[str]:
        """The expressions of which there are faces, the first ones only in a set of fewer faces."""
        if self.shares is not None:
            return [name for name, share in self.shares.items() if share > 0]
        return self.expressions[: self.count]
