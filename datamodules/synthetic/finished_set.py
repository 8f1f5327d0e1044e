"""The faces of a finished synthetic set that a run may use beside its real rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.readers.reader import Reader
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import SampleTable
from synfer.faces.expressions import map_label_space


def most_synthetic(multiple: float, real_rows: int) -> int:
    """Returns the distinct synthetic samples that a multiple of so many real rows allows.

    Raises:
        ValueError: it allows none.
    """
    most = math.floor(multiple * real_rows + 1e-9)
    if most == 0:
        raise ValueError(
            f"data.synthetic_multiple={multiple}: found 0 synthetic samples allowed for "
            f"{real_rows} real rows, expected at least 1 (a multiple of {1 / real_rows:.2g} or more)"
        )
    return most


def refuse_beside_folds(folds: int | None) -> None:
    """Refuses folds beside a finished set.

    Its faces may have the layouts, or be copies, of rows that a fold holds out, and nothing would tell.

    Raises:
        ValueError: there are folds.
    """
    if folds is not None:
        raise ValueError(
            f"data.folds={folds}: found data.synthetic_reader beside it, whose faces may come from rows that are "
            "held out, expected data.synthetic_ratio=0, or faces made during the run, with layouts of rows in use"
        )


def read_finished_set(
    reader: Reader, label_space: tuple[str, ...], multiple: float | None, most: int | None, seed: int
) -> SampleTable:
    """Returns the training faces of a finished set in a run's label space, no more than allowed.

    Args:
        reader: of the set.
        label_space: names of the run's expressions, among which those of the set are.
        multiple: ``data.synthetic_multiple``, for a warning.
        most: how many faces are used: chosen at random, each class with the share that it has in the set, fewer being a
            subset of more; None = all.
        seed: of that choice.

    Raises:
        ValueError: the set has an expression that the run does not know.
    """
    table = reader.read("train")
    missing = [name for name in table.label_space if name not in label_space]
    if missing:
        raise ValueError(
            f"data.synthetic_reader: found expression '{missing[0]}', expected one of {', '.join(label_space)}"
        )
    if table.label_space != label_space:
        table = _relabelled(table, label_space)
    if most is not None:
        if len(table) < most:
            rank_zero_warn(
                f"data.synthetic_multiple={multiple}: found a synthetic set of {len(table)} "
                f"faces, expected {most} for that multiple; all {len(table)} are used"
            )
        order = even_order(table.label, table.sample_id, seed)
        table = table.select(np.sort(order[:most]))
    return replace(table, is_synthetic=True)


def _relabelled(table: SampleTable, label_space: tuple[str, ...]) -> SampleTable:
    """Returns the table in a label space that holds all of its names."""
    position = map_label_space(table.label_space, label_space)
    soft_label = np.zeros((len(table), len(label_space)), dtype=np.float32)
    soft_label[:, position >= 0] = table.soft_label[:, position[position >= 0]]
    label = map_label_space(label_space, table.label_space)[table.label]
    return replace(table, label=label, soft_label=soft_label, label_space=label_space)
