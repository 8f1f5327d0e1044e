"""Real faces that others are made from, and which one each sample gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor


class SourceFaces(Protocol):
    """Training faces by row number, none of them an evaluation image (contract C8)."""

    @property
    def label_space(self) -> tuple[str, ...]:
        """Names of the expressions that they may show."""
        ...

    def __len__(self) -> int: ...

    def rows_of(self, expression: str) -> np.ndarray:
        """Returns the row numbers of the faces that show an expression, int64, ascending; none where no face does."""
        ...

    def images(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 1, H, W), grey, or (n, 3, H, W), RGB, for int64 row numbers (n,)."""
        ...

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Returns what the faces show, int64 (n,), in ``label_space``."""
        ...

    def sample_ids(self, rows: np.ndarray) -> list[str]:
        """Returns the names of the faces."""
        ...

    def fingerprint(self) -> str:
        """Returns 16 hex digits over pixels and labels: equal where the same faces would be made."""
        ...


def choose_others(sources: SourceFaces, expressions: Sequence[str], uniform: np.ndarray) -> np.ndarray:
    """Returns one row for each sample, int64 (n,): of any expression but the one that it names, each as likely.

    Args:
        sources: the faces.
        expressions: n names.
        uniform: n numbers in [0, 1) that decide.

    Raises:
        ValueError: no face of another expression.
    """
    rows = np.empty(len(uniform), dtype=np.int64)
    for name in set(expressions):
        places = np.array([i for i, wanted in enumerate(expressions) if wanted == name])
        others = np.setdiff1d(np.arange(len(sources)), sources.rows_of(name))
        if not len(others):
            raise ValueError(f"found no training face of another expression than '{name}', expected at least one")
        rows[places] = others[(uniform[places] * len(others)).astype(np.int64)]
    return rows


def choose_sources(sources: SourceFaces, expressions: Sequence[str], uniform: np.ndarray) -> np.ndarray:
    """Returns one row for each sample, int64 (n,): of the expression that it names, each as likely as any other.

    Args:
        sources: the faces.
        expressions: n names; "any" takes all faces.
        uniform: n numbers in [0, 1) that decide.

    Raises:
        ValueError: no face of one of the expressions.
    """
    rows = np.empty(len(uniform), dtype=np.int64)
    for name in set(expressions):
        places = np.array([i for i, wanted in enumerate(expressions) if wanted == name])
        if name == "any":
            rows[places] = (uniform[places] * len(sources)).astype(np.int64)
            continue
        members = sources.rows_of(name)
        if not len(members):
            raise ValueError(f"found no training face of '{name}', expected at least one")
        rows[places] = members[(uniform[places] * len(members)).astype(np.int64)]
    return rows
