"""What a model learned from, as far as its checkpoint says: for whoever must not be judged by its own pupil."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synfer.foundation.checkpoint_file import find_checkpoint, read_checkpoint

_DATA_MODULE = "ExpressionDataModule"  # Lightning keeps its state under the name of the class


@dataclass(frozen=True)
class TrainingProvenance:
    """What a model was trained on.

    Attributes:
        label_space: names of the expressions.
        reader: class of the reader; None = not recorded.
        labels: which labelling that reader gave; None = it has one alone, or not recorded.
        trained_on: content hashes of the rows, int64, sorted; None = not recorded.
    """

    label_space: tuple[str, ...]
    reader: str | None = None
    labels: str | None = None
    trained_on: np.ndarray | None = None

    @property
    def source(self) -> dict[str, Any]:
        """All but the rows, in plain types."""
        return {"label_space": list(self.label_space), "reader": self.reader, "labels": self.labels}

    def state_dict(self) -> dict[str, Any]:
        """Returns plain types and a tensor, for a checkpoint."""
        rows = None if self.trained_on is None else torch.from_numpy(self.trained_on)
        return {**self.source, "trained_on": rows}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> TrainingProvenance:
        """Returns what :meth:`state_dict` gave."""
        rows = state["trained_on"]
        rows = None if rows is None else np.sort(rows.numpy().copy())
        return cls(tuple(state["label_space"]), state["reader"], state["labels"], rows)

    @classmethod
    def of_checkpoint(cls, checkpoint: dict[str, Any], label_space: tuple[str, ...]) -> TrainingProvenance:
        """Returns what a Lightning checkpoint holds of its data module's state.

        Args:
            checkpoint: its content.
            label_space: of the model.
        """
        data = data_state(checkpoint)
        source = {"reader": None, "labels": None, **data.get("source", {})}
        return cls.from_state_dict({**source, "label_space": label_space, "trained_on": data.get("trained_on")})

    @classmethod
    def of_file(cls, path: str | Path, label_space: tuple[str, ...]) -> TrainingProvenance:
        """Returns the same of a checkpoint file; a folder of weights records nothing."""
        path = find_checkpoint(path, "generator")
        if not path.is_file():
            return cls(label_space)
        return cls.of_checkpoint(read_checkpoint(path, "generator", mmap=True), label_space)


def data_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Returns the state of the data module in a Lightning checkpoint; {} where there is none."""
    state: dict[str, Any] = checkpoint.get(_DATA_MODULE, {})
    return state
