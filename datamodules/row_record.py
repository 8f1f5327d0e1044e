"""What a checkpoint keeps of the rows that its model has trained on, so that nobody is judged by his own pupil."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from datamodules.readers.held_out import HeldOutReader
from datamodules.readers.reader import Reader
from datamodules.rows.folds import hash_numbers
from datamodules.rows.sample_table import SampleTable
from datamodules.training_rows import TrainingRows


class RowRecord:
    """Source and content hashes of the rows that a model has seen, over all runs that went on from each other.

    All ranks hold the same, so rank 0's state, the only one stored, serves them all.

    Args:
        reader: the run's data.
        rows: how its training rows are chosen.
    """

    def __init__(self, reader: Reader, rows: TrainingRows) -> None:
        self._reader, self._rows = reader, rows
        self._before = torch.empty(0, dtype=torch.int64)

    def state_dict(self, training: SampleTable | None) -> dict[str, Any]:
        """Returns plain types and a tensor.

        Args:
            training: rows that this run trains on; None = it does not train.
        """
        state: dict[str, Any] = {
            "folds": self._rows.folds,
            "fold": self._rows.fold,
            "source": self._reader.source(),
            "held_out": self._held_out(),
        }
        if training is not None:
            now = torch.from_numpy(hash_numbers(training.content_hash))
            state["trained_on"] = torch.cat([self._before, now]).unique()
        return state

    def load_state_dict(self, state: dict[str, Any], goes_on: bool, validation: SampleTable | None) -> None:
        """Remembers the rows that the model of a checkpoint has seen.

        Args:
            state: of the checkpoint.
            goes_on: whether a training goes on from it; evaluated are the weights alone.
            validation: rows of this run; None = not read.

        Raises:
            ValueError: a fit goes on with other rows held out, or rows that this run holds out were trained on.
        """
        self._before = state.get("trained_on", self._before).cpu()
        if goes_on and "folds" in state:
            self._rows.check_same_folds(state["folds"], state["fold"])
        before, now = state.get("held_out"), self._held_out()
        if goes_on and "held_out" in state and before != now:
            raise ValueError(
                f"{_described(now)}: found a checkpoint trained with {_described(before)}, expected the same to go on "
                "from it"
            )
        refuse_seen(validation, self._before.numpy(), "ckpt_path")

    def add(self, state: dict[str, Any], validation: SampleTable | None, who: str) -> None:
        """Remembers the rows that the model has seen in a training which this one begins with.

        Args:
            state: of that training's checkpoint; {} = not recorded.
            validation: rows of this run; None = not read.
            who: where the weights come from, for the error.

        Raises:
            ValueError: that training has seen rows, or may have, that this run holds out.
        """
        found = (state.get("folds"), state.get("fold"))
        if self._rows.folds is not None and found != (self._rows.folds, self._rows.fold):
            recorded = f"folds={found[0]}, fold={found[1]}" if state else "no record of its rows"
            raise ValueError(
                f"data.folds={self._rows.folds}, data.fold={self._rows.fold}: found {who} with {recorded}, expected a "
                "training on the same fold"
            )
        self._before = torch.cat([self._before, state.get("trained_on", self._before).cpu()]).unique()
        refuse_seen(validation, self._before.numpy(), who)

    def _held_out(self) -> dict[str, Any] | None:
        holds_out = isinstance(self._reader, HeldOutReader) and self._reader.holds_out
        return self._reader.share.state_dict() if holds_out else None  # type: ignore[attr-defined]


def refuse_seen(validation: SampleTable | None, trained_on: np.ndarray | None, who: str) -> None:
    """Refuses a model that has learned from rows that are held out to score what comes of it (contract C8).

    Rows of a validation split of its own are not looked at: those in training as well are told by ``drop_duplicates``.

    Args:
        validation: the run's validation rows; None = not read.
        trained_on: content hashes that the model has seen, int64; None = not recorded.
        who: the model, for the error: "synthesis.generator 'path'".

    Raises:
        ValueError: it has seen one.
    """
    if validation is None or validation.held_out is None or trained_on is None:
        return
    seen = int(np.isin(hash_numbers(validation.content_hash), trained_on).sum())
    if seen:
        raise ValueError(
            f"{who}: found a model that has learned from {seen} of the {len(validation)} rows held out for validation, "
            f"expected one trained with {_described(validation.held_out)}"
        )


def _described(share: dict[str, Any] | None) -> str:
    if share is None:
        return "data.val_fraction=null"
    groups = f", data.val_groups='{share['groups']}'" if share["groups"] else ""
    return f"data.val_fraction={share['fraction']:g}, data.val_seed={share['seed']}{groups}"
