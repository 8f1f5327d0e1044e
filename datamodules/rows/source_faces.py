"""Training faces that others are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.rows.provenance import check_sources
from datamodules.rows.sample_table import SampleTable
from datamodules.rows.unlabelled import expression_names


class TrainingSources:
    """Training rows as sources, checked against the evaluation rows (contract C8).

    Args:
        training: rows in use.
        evaluation: rows of the evaluation splits.
        purpose: what the faces are for, in errors: "layout source".

    Raises:
        ValueError: rows of another split, or one of them is an evaluation image.
    """

    def __init__(self, training: SampleTable, evaluation: Sequence[SampleTable], purpose: str) -> None:
        if training.split != "train":
            raise ValueError(f"{purpose}: found the {training.split} split, expected training images only")
        check_sources(training.content_hash, evaluation, f"{purpose} (data.drop_duplicates=true removes duplicates)")
        self.table = training
        self._rows: dict[str, np.ndarray] = {}

    @property
    def label_space(self) -> tuple[str, ...]:
        """Names of the expressions that they may show."""
        return self.table.label_space

    def __len__(self) -> int:
        return len(self.table)

    def rows_of(self, expression: str) -> np.ndarray:
        """Returns the row numbers of the faces that show an expression, int64, ascending; none where no face does."""
        if expression not in self._rows:
            known = [code for code, name in enumerate(self.label_space) if name == expression]
            self._rows[expression] = np.flatnonzero(np.isin(self.table.label, known))
        return self._rows[expression]

    def images(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 1, H, W), grey, or (n, 3, H, W), RGB, for int64 row numbers (n,)."""
        return self.table.images.batch(rows)

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Returns what the faces show, int64 (n,), in ``label_space``."""
        return self.table.label[rows]

    def sample_ids(self, rows: np.ndarray) -> list[str]:
        """Returns the names of the faces."""
        return [str(name) for name in self.table.sample_id[rows]]

    def fingerprint(self) -> str:
        """Returns 16 hex digits over pixels and labels, in the order of the rows: it decides who gets which."""
        names = expression_names(self.table.label, self.label_space)
        return rows_fingerprint(self.table.content_hash, names)


def rows_fingerprint(content_hash: np.ndarray, shown: Iterable[object]) -> str:
    """Returns 16 hex digits over the pixels of rows, as their content hashes, and what each shows, in this order."""
    rows = "".join(f"{digest} {name}\n" for digest, name in zip(content_hash, shown, strict=True))
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def evaluation_tables(datamodule: Any) -> list[SampleTable]:
    """Returns the rows of the evaluation splits that training rows must not repeat (contract C8).

    Args:
        datamodule: the run's, its splits of "fit" read; of a test split that a fit does not read this does.
    """
    tables = [table for table in (datamodule.val_table, datamodule.test_table) if table is not None]
    return tables if datamodule.test_table is not None else tables + datamodule.read_if_there("test")


def training_sources(datamodule: Any, purpose: str) -> TrainingSources:
    """Returns the training rows in use as sources; reads the splits that a fit reads where they have not been read.

    Args:
        datamodule: the run's data module.
        purpose: what the faces are for, in errors.

    Raises:
        ValueError: one of them is an evaluation image.
    """
    if datamodule.train_table is None:
        datamodule.setup("fit")
    return TrainingSources(datamodule.train_table, evaluation_tables(datamodule), purpose)
