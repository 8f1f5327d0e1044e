"""Any data set with its splits under other names, or with fewer expressions."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np

from datamodules.readers.reader import Reader, Split
from datamodules.rows.sample_table import UNLABELLED, SampleTable
from synfer.faces.expressions import map_label_space, resolve_label_space


class RemappedReader(Reader):
    """Reads a split of another reader where one is asked for, as in scoring the labels of a training split.

    Args:
        reader: the data set.
        splits: asked split → split that is read; those left out stay.
        label_space: "basic7", "ferplus8" or a list of names: rows of other expressions are left out and counted in
            ``table.report.excluded``, soft labels renormalised; None = the reader's own.

    Raises:
        ValueError: an unknown split, or an expression that the reader does not know.
    """

    def __init__(
        self, reader: Reader, splits: dict[str, str] | None = None, label_space: str | list[str] | None = None
    ) -> None:
        splits = splits or {}
        for name in (*splits, *splits.values()):
            if name not in get_args(Split):
                raise ValueError(f"data.reader.init_args.splits: found '{name}', expected train, val or test")
        self.reader, self.splits = reader, splits
        self.label_space = reader.label_space if label_space is None else resolve_label_space(label_space)
        strange = [name for name in self.label_space if name not in reader.label_space]
        if strange:
            raise ValueError(
                f"data.reader.init_args.label_space: found '{strange[0]}', expected some of "
                f"{', '.join(reader.label_space)}"
            )

    def source(self) -> dict[str, str | None]:
        """Returns that of the data set behind this one."""
        return self.reader.source()

    def has_split(self, split: Split) -> bool:
        """Whether there are rows of the split that stands for this one."""
        return self.reader.has_split(self.splits.get(split, split))  # type: ignore[arg-type]

    def fit_size(self, image_size: int) -> None:
        """Tells the data set behind this one."""
        self.reader.fit_size(image_size)

    def want_landmarks(self) -> None:
        """Tells the data set behind this one."""
        self.reader.want_landmarks()

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of the split that stands for this one.

        Raises:
            ValueError: no row shows an expression of the label space.
        """
        table = self.reader.read(self.splits.get(split, split))  # type: ignore[arg-type]
        if self.label_space == table.label_space:
            return table
        unlabelled = table.label == UNLABELLED
        label = np.where(unlabelled, UNLABELLED, map_label_space(self.label_space, table.label_space)[table.label])
        soft_label = table.soft_label[:, map_label_space(table.label_space, self.label_space)]
        kept = np.flatnonzero((unlabelled | (label >= 0)) & (soft_label.sum(1) > 0))
        if not len(kept):
            raise ValueError(f"split '{split}': found no row of {', '.join(self.label_space)}, expected at least one")
        left_out = {"expression outside the label space": len(table) - len(kept)}
        rows = table.select(kept)
        return replace(
            rows,
            label=label[kept],
            soft_label=soft_label[kept] / soft_label[kept].sum(1, keepdims=True),
            label_space=self.label_space,
            report=replace(rows.report, excluded={**rows.report.excluded, **left_out}),
        )
