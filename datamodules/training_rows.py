"""Which rows a run trains on, and by which labels: folds, duplicates, a share of them, a label table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.captions.streamed_images import StreamedImages
from datamodules.rows.folds import assign_folds
from datamodules.rows.groups import refuse_shared_groups
from datamodules.rows.long_tail import long_tailed_counts
from datamodules.rows.provenance import DuplicateReport, find_duplicates
from datamodules.rows.row_choice import choose_counts, choose_share
from datamodules.rows.sample_table import SampleTable
from datamodules.setting_range import check_range
from synfer.faces.expressions import map_label_space
from synfer.labels.label_table import read_label_table


@dataclass(frozen=True)
class TrainingRows:
    """How the training rows of a run are chosen from those of the data set.

    Attributes:
        folds: number of folds; None = no folds.
        fold: the fold, from 0, that is held out.
        drop_duplicates: whether rows with the pixels of an evaluation row go.
        near_duplicates: correlation of thumbnails, in (0, 1), above which rows go as well; None = none.
        training_fraction: share of the rows, in (0, 1], the same in each class.
        label_table: Parquet label table whose labels replace the rows' own; None = their own.
        imbalance: rows of the largest class for one of the smallest, ≥ 1, of an exponential long tail; None = as it is.
        imbalance_largest: bound on the rows of the largest class in it; None = none.

    Raises:
        ValueError: a value outside its range, or one of two that belong together.
        FileNotFoundError: no such label table.
    """

    folds: int | None = None
    fold: int | None = None
    drop_duplicates: bool = False
    near_duplicates: float | None = None
    training_fraction: float = 1.0
    label_table: str | None = None
    imbalance: float | None = None
    imbalance_largest: int | None = None

    def __post_init__(self) -> None:
        folds, fold, near, share = self.folds, self.fold, self.near_duplicates, self.training_fraction
        check_range("training_fraction", share, 0 < share <= 1, "a number in (0, 1]")
        check_range("folds", folds, (folds is None) == (fold is None), "data.fold with it, or neither")
        check_range("folds", folds, folds is None or folds >= 2, "at least 2")
        check_range("fold", fold, fold is None or 0 <= fold < (folds or 0), f"a fold in 0…{(folds or 1) - 1}")
        if self.label_table is not None and not Path(self.label_table).is_file():
            raise FileNotFoundError(
                f"data.label_table '{self.label_table}': no such file, expected a Parquet label table"
            )
        check_range("near_duplicates", near, near is None or 0 < near < 1, "a correlation in (0, 1), or null")
        check_range("near_duplicates", near, near is None or self.drop_duplicates, "data.drop_duplicates=true with it")

        ratio, largest = self.imbalance, self.imbalance_largest
        check_range("imbalance", ratio, ratio is None or 1 <= ratio < float("inf"), "a number of at least 1, or null")
        check_range("imbalance_largest", largest, largest is None or largest >= 1, "at least 1, or null")
        check_range("imbalance_largest", largest, largest is None or ratio is not None, "data.imbalance with it")

    def outside_fold(self, rows: SampleTable) -> SampleTable:
        """Returns the rows that are not held out; all of them without folds.

        Raises:
            ValueError: content counts, and the pictures of a stream are not read before they are needed.
        """
        if isinstance(rows.images, StreamedImages):
            check_range("folds", self.folds, self.folds is None, "null with a stream: folds are cut by content")
            drop = self.drop_duplicates
            check_range("drop_duplicates", drop, not drop, "false with a stream: its pictures are not compared")
        return rows if self.folds is None else rows.select(assign_folds(rows, self.folds) != self.fold)

    def inside_fold(self, rows: SampleTable) -> SampleTable:
        """Returns the rows that are held out; all of them without folds."""
        return rows if self.folds is None else rows.select(assign_folds(rows, self.folds) == self.fold)

    def check_same_folds(self, folds: int | None, fold: int | None) -> None:
        """Compares these folds with those of a checkpoint that a fit goes on from.

        Raises:
            ValueError: they differ: the rows held out now were trained on before.
        """
        if (folds, fold) != (self.folds, self.fold):
            raise ValueError(
                f"data.folds={self.folds}, data.fold={self.fold}: found a checkpoint trained with folds={folds}, "
                f"fold={fold}, expected the same to go on from it"
            )

    def choose(
        self, rows: SampleTable, evaluation: Sequence[SampleTable], seed: int
    ) -> tuple[SampleTable, DuplicateReport]:
        """Returns the rows to train on, of those outside the fold, and which of them evaluation rows repeat.

        Args:
            rows: training rows outside the fold.
            evaluation: rows that the run is scored on.
            seed: of the choice of a share.

        Raises:
            ValueError: no row is left, people who are evaluated are trained on, or the label table does not fit.
        """
        refuse_shared_groups(rows, evaluation)
        if isinstance(rows.images, StreamedImages):
            report = DuplicateReport(0, 0, 0)
            rank_zero_info("duplicates: not looked for, pictures of a stream are not read before they are needed")
        else:
            report = find_duplicates(rows, list(evaluation), self.near_duplicates)
            rank_zero_info(str(report))
        if self.drop_duplicates and len(report.rows_to_drop):
            kept = np.setdiff1d(np.arange(len(rows)), report.rows_to_drop)
            if not len(kept):
                raise ValueError(
                    f"data.drop_duplicates=true: found duplicates of all {len(rows)} training rows in the evaluation "
                    "splits, expected some training rows of their own"
                )
            rank_zero_info(f"data.drop_duplicates: {len(rows) - len(kept)} of {len(rows)} training rows dropped")
            rows = rows.select(kept)
        if self.imbalance is not None:
            rows = self._long_tailed(rows, self.imbalance, seed)
        if self.training_fraction < 1:
            rows = rows.select(choose_share(rows.label, rows.sample_id, self.training_fraction, seed))
        if self.label_table is not None:  # last: the rows are the same with it and without
            rows = join_label_table(rows, self.label_table)
        return rows, report

    def _long_tailed(self, rows: SampleTable, ratio: float, seed: int) -> SampleTable:
        """Returns a long-tailed part of the rows, and says how many of each class it has."""
        available = rows.count_per_class()
        if available.sum() < len(rows):
            without = len(rows) - available.sum()
            raise ValueError(f"data.imbalance={ratio:g}: found {without} rows without an expression, expected none")
        counts = long_tailed_counts(available, ratio, self.imbalance_largest)
        whole = [rows.label_space[c] for c in np.flatnonzero((counts == available) & (available > 0))]
        rows = rows.select(choose_counts(rows.label, rows.sample_id, counts, seed))
        found = {name: count for name, count in rows.class_counts().items() if count}
        without = [name for name in rows.label_space if name not in found]
        in_order = sorted(found.items(), key=lambda item: -item[1])
        rank_zero_info(
            f"data.imbalance={ratio:g}: {len(rows)} training rows, {', '.join(f'{n} {name}' for name, n in in_order)}"
            + (f"; of {', '.join(whole)} there are no more" if whole else "")
            + (f"; no row at all of {', '.join(without)}" if without else "")
        )
        return rows


def join_label_table(rows: SampleTable, path: str | Path) -> SampleTable:
    """Returns the rows with the labels of a label table in place of their own, joined by sample id.

    Rows of the label table that are not wanted here do not matter.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no label table, another label space, a row without a label, or one whose image is another now.
    """
    table = read_label_table(path)
    columns = map_label_space(table.label_space, rows.label_space)
    if (columns < 0).any() or len(table.label_space) != len(rows.label_space):
        raise ValueError(
            f"data.label_table '{path}': found the label space {', '.join(table.label_space)}, expected "
            f"{', '.join(rows.label_space)}"
        )
    place = {name: index for index, name in enumerate(table.sample_id.tolist())}
    index = np.array([place.get(name, -1) for name in rows.sample_id.tolist()], dtype=np.int64)
    lost = np.flatnonzero(index < 0)
    if len(lost):
        raise ValueError(
            f"data.label_table '{path}': found no label of '{rows.sample_id[lost[0]]}' ({len(lost)} of {len(rows)} "
            "rows without), expected one of every training row"
        )
    changed = np.flatnonzero(table.content_hash[index] != rows.content_hash)
    if len(changed):
        raise ValueError(
            f"data.label_table '{path}': '{rows.sample_id[changed[0]]}' is another image than the one that was "
            f"relabelled ({len(changed)} of {len(rows)} rows), expected a table of this data set"
        )
    soft_label = table.soft_label[index][:, columns]
    label = map_label_space(rows.label_space, table.label_space)[table.label[index]]
    return replace(rows, label=label, soft_label=soft_label / soft_label.sum(1, keepdims=True))
