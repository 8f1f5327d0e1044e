"""metrics.csv of a run folder (C5): rows of (epoch, step, metrics), written, mended and read."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import plain_reason

FIRST_COLUMNS = ("epoch", "step")

History = list[tuple[int, float]]
"""(optimiser step, value) of one metric, in the order of logging."""


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the whole table anew, or nothing."""
    with atomic_write(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def append_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows to a table with these columns."""
    with path.open("a", newline="") as file:
        csv.DictWriter(file, columns).writerows(rows)


def read_rows(path: Path, before_step: int | None = None) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns the rows of a table, and the lines that have not the columns of the first one.

    A last line that was cut off by a kill is left out.

    Args:
        path: the file; a missing one has no rows.
        before_step: keep only rows of steps before this one; None = all.
    """
    if not path.is_file():
        return [], []
    with path.open(newline="", errors="replace") as file:
        lines = file.readlines()
    if lines and not lines[-1].endswith("\n"):  # cut off by a kill in the middle of a write
        lines.pop()
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    for row in csv.DictReader(lines):
        if None in row or None in row.values():
            damaged.append(len(rows) + 2)
        elif before_step is None or _is_before(row.get("step"), before_step):
            rows.append(row)
    return rows, damaged


def read_history(path: Path, metric: str) -> History:
    """Returns (step, value) of every row that holds the metric; [] without the file or the column.

    The half-written last row of a run that was killed is left out.

    Raises:
        ValueError: the file is not a table of numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"'{path}': {plain_reason(error)}, expected the table of a run: found no history") from None
    if "step" not in header:
        raise ValueError(f"'{path}': found no column 'step', expected the table of a run: found no history")
    if metric not in header:
        return []
    step, value, width = header.index("step"), header.index(metric), len(header)
    history = []
    for number, row in enumerate(rows, 2):
        if len(row) == width and row[value] and row[step]:
            history.append((_number(row[step], path, number), _number(row[value], path, number)))
        elif len(row) != width and number <= len(rows):
            raise ValueError(f"'{path}' line {number}: found {len(row)} cells, expected {width} as in its first line")
    return [(int(s), v) for s, v in history if math.isfinite(v) and math.isfinite(s)]


def _number(cell: str, path: Path, line: int) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"'{path}' line {line}: found '{cell[:40]}', expected a number") from None


def _is_before(step: str | None, bound: int) -> bool:
    try:
        return step in (None, "") or float(str(step)) < bound
    except ValueError:
        return False
