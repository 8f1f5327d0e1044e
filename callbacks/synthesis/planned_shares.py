"""In which shares a run makes the expressions, from which of its faces on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from synfer.faces.action_units import ACTION_UNITS
from synfer.foundation.on_rank_zero import on_rank_zero_for_all
from synfer.synthesis.class_shares import EVEN, FEEDBACK, check_plan, class_shares, missing_faces, shares_in_words
from synfer.synthesis.feedback_shares import FeedbackSettings, feedback_shares
from synfer.synthesis.plan import EndlessPlan
from synfer.synthesis.proportional_plan import EndlessProportionalPlan, SuccessivePlan
from synfer.synthesis.request import SynthesisSettings

_Shares = dict[str, float] | None
"""Share by expression; None = the rounds of an :class:`EndlessPlan`, evenly."""

_RECALL = "val/recall/"


class PlannedShares:
    """The shares in force on all ranks, and those by which each rank made its faces before.

    A face is a function of (seed, rank, number) and of the shares that were in force when its number was due. These are
    therefore kept, for each rank, with the number they began at: a run that goes on, by another plan too, makes the
    faces of its pool again as they were.

    Args:
        plan: name of a plan of :data:`synfer.synthesis.class_shares.PLANS`, or "feedback".
        feedback: how shares follow recalls; None = the defaults.

    Attributes:
        now: the shares in force; None = evenly, in rounds.

    Raises:
        ValueError: an unknown plan, or settings of feedback without it.
    """

    def __init__(self, plan: str, feedback: FeedbackSettings | None) -> None:
        check_plan("synthesis.plan", plan, FEEDBACK)
        if feedback is not None and plan != FEEDBACK:
            raise ValueError(
                f"synthesis.feedback: found {feedback.__dict__} beside synthesis.plan={plan}, expected "
                f"synthesis.plan={FEEDBACK}, or no such setting"
            )
        self.name, self.settings = plan, feedback or FeedbackSettings()
        self.now: _Shares = None
        self._history: dict[int, list[tuple[int, _Shares]]] = {}

    @property
    def follows_recalls(self) -> bool:
        """Whether the shares change during a training."""
        return self.name == FEEDBACK

    @property
    def is_even(self) -> bool:
        """Whether everything that was and will be made is even: then nothing needs to be kept."""
        return self.name == EVEN and not self._history

    def begin(self, names: Sequence[str], counts: Mapping[str, int], ratio: float) -> None:
        """Fixes the shares that a training begins with, and tells them.

        Args:
            names: expressions to make.
            counts: training rows of every expression of the data.
            ratio: share of synthetic faces in a batch, to be compared with the one that balances the classes.

        Raises:
            ValueError: an expression without a training row, or nothing to fill up.
        """
        if self.name == EVEN:
            return
        plan = EVEN if self.follows_recalls else self.name
        self.now = class_shares(plan, counts, names, "synthesis.plan")
        words = shares_in_words(self.now)
        if self.name == "fill":
            missing = missing_faces(counts, names)
            balanced = missing / (sum(counts.values()) + missing)
            words += f"; batches are balanced at data.synthetic_ratio={balanced:.3f}, found {ratio:g}"
        rank_zero_info(f"synthesis.plan={self.name}: {words}")

    def follow(self, metrics: Mapping[str, Any], model: str) -> None:
        """Moves the shares by the recalls of a validation; a collective, alike on all ranks.

        Args:
            metrics: what was logged, by name.
            model: class of the model, for the message.

        Raises:
            ValueError: no recall of any of the expressions was logged.
        """
        assert self.now is not None
        names = list(self.now)
        self.now = on_rank_zero_for_all(lambda: feedback_shares(_recalls(metrics, names, model), names, self.settings))
        rank_zero_info(f"synthesis.plan={FEEDBACK}: {shares_in_words(self.now)}")

    def go_on(self, rank: int, number: int) -> None:
        """Notes that this rank makes its faces by the present shares from this number on."""
        if self.is_even:
            return
        history = self._history.setdefault(rank, [])
        if history and history[-1][1] == self.now:
            return
        if history and history[-1][0] == number:
            history.pop()
        history.append((number, self.now))

    def plan(
        self,
        names: Sequence[str],
        seed: int,
        rank: int,
        settings: SynthesisSettings | None,
        au_names: Sequence[str] = ACTION_UNITS,
    ) -> EndlessPlan:
        """Returns what a rank makes, and has made.

        Args:
            names: expressions to make, where they come evenly in rounds.
            seed: of the run.
            rank: whose faces.
            settings: how to make them; None = the synthesiser's own.
            au_names: action units that it takes.
        """

        def by(shares: _Shares) -> EndlessPlan:
            if shares is None:
                return EndlessPlan(names, seed, rank, settings, au_names)
            return EndlessProportionalPlan(shares, seed, rank, settings, au_names)

        plans = [(first, by(shares)) for first, shares in self._history.get(rank) or [(0, self.now)]]
        return plans[0][1] if len(plans) == 1 else SuccessivePlan(plans)

    # ------------------------------------------------------------------ going on

    def state(self) -> dict[str, Any]:
        """Returns plan, shares, and the history of all ranks as far as this one knows it, in plain types."""
        history = {str(rank): [list(entry) for entry in entries] for rank, entries in self._history.items()}
        return {"name": self.name, "shares": self.now, "history": history}

    def load(self, state: Mapping[str, Any] | None, ranks: Iterable[int]) -> None:
        """Takes over what :func:`merged_states` has stored; called after :meth:`begin`.

        Args:
            state: None of a run that was even, or older than the plans.
            ranks: those that made faces then.
        """
        if state is None:
            self._history = {} if self.name == EVEN else {rank: [(0, None)] for rank in ranks}
            return
        self._history = {
            int(rank): [(first, shares) for first, shares in entries] for rank, entries in state["history"].items()
        }
        stored = state["shares"]
        if self.follows_recalls and state["name"] == self.name and self.now is not None and stored is not None:
            # With other expressions it begins evenly again.
            self.now = dict(stored) if set(stored) == set(self.now) else self.now


def merged_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one state of those of all ranks, each of which knows its own history best."""
    own = {str(rank): state["history"].get(str(rank)) for rank, state in enumerate(states)}
    known = {rank: entries for rank, entries in own.items() if entries is not None}
    return {**states[0], "history": {**states[0]["history"], **known}}


def _recalls(metrics: Mapping[str, Any], names: Sequence[str], model: str) -> dict[str, float]:
    found = {name: float(metrics[_RECALL + name]) for name in names if _RECALL + name in metrics}
    if not found:
        raise ValueError(
            f"synthesis.plan={FEEDBACK}: found no {_RECALL}… of {', '.join(names)} among what {model} logs in "
            "validation, expected a model that logs them (ExpressionClassifier), and validation rows of some"
        )
    return found
