"""Rows whose expression nobody has told: what stands for their label, and who may use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.rows.sample_table import UNLABELLED, SampleTable


def unlabelled_soft_labels(count: int, num_classes: int) -> np.ndarray:
    """Returns soft labels of rows that say nothing, float32 (n, K): every class alike."""
    return np.full((count, num_classes), 1 / num_classes, dtype=np.float32)


def expression_names(labels: Sequence[int] | np.ndarray, label_space: Sequence[str]) -> list[str | None]:
    """Returns the name of each label, None where a row has none: an index of −1 must never become the last name."""
    return [label_space[label] if label >= 0 else None for label in np.asarray(labels).tolist()]


def check_labels_needed(table: SampleTable, split: str, trainer: Any) -> None:
    """Refuses rows without an expression where somebody would take one from them.

    A module that can do without says so by ``uses_unlabelled_rows = True``; a test of the test split can where it
    scores more than expressions, and says so by ``scores_unlabelled_rows = True``.

    Args:
        table: rows of the run.
        split: that was asked for.
        trainer: of the run; None = nothing is refused.

    Raises:
        ValueError: there are such rows, and the module needs labels.
    """
    module, command = getattr(trainer, "lightning_module", None), getattr(getattr(trainer, "state", None), "fn", None)
    without = np.flatnonzero(table.label == UNLABELLED)
    scored = split == "test" and command == "test" and not getattr(module, "scores_unlabelled_rows", False)
    if module is None or not len(without) or (not scored and getattr(module, "uses_unlabelled_rows", False)):
        return
    raise ValueError(
        f"data.reader: found {len(without)} of {len(table)} {split} rows without an expression, the first of them "
        f"'{table.sample_id[without[0]]}', expected an expression of each for {type(module).__name__} (a column of "
        "names: data.reader.init_args.label_column)"
    )
