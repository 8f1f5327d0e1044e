"""Cells of tables of action units, CSV or Parquet, with errors that name file, line and column."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ID_COLUMNS = ("sample_id", "id", "image", "image_path", "image_name", "file", "filename", "file_name", "name", "input")
"""Columns in which tables name their pictures, the first that is there counts."""

_NOT_A_NUMBER = re.compile(r"(-?nan(\(ind\))?)?", re.IGNORECASE)  # as compilers of different makers print it


@dataclass(frozen=True)
class TableCells:
    """A table as text: names of columns and cells without blanks around them.

    Attributes:
        path: the file.
        header: names of all columns.
        columns: cells of the columns that were kept, by their place in the header.
        lines: N numbers of the rows, as errors name them.
        unit: what these numbers count: "line" of a text file from 1, "row" of another from 0.
    """

    path: Path
    header: tuple[str, ...]
    columns: dict[int, list[str]]
    lines: Sequence[int]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, *names: str) -> int | None:
        """Returns the place of the first of these columns that is there, whatever its case; None without one."""
        places = {name.casefold(): place for place, name in reversed(list(enumerate(self.header)))}
        return next((places[name.casefold()] for name in names if name.casefold() in places), None)

    def id_column(self, asked: str | None) -> int | None:
        """Returns the place of the column with the names of the pictures; None where there is none.

        Args:
            asked: name of the column; None = one of :data:`ID_COLUMNS`.

        Raises:
            ValueError: the column asked for is not there.
        """
        place = self.find(*(ID_COLUMNS if asked is None else (asked,)))
        if place is None and asked is not None:
            raise ValueError(f"{self.path}: found no column '{asked}' ({self.columns_found}), expected it")
        return place

    @property
    def columns_found(self) -> str:
        """The header in an error."""
        return f"found {', '.join(self.header)[:120]}"

    def where(self, row: int) -> str:
        """Returns file and line of a row, for an error."""
        return f"{self.path} {self.unit} {self.lines[row]}"

    def number(self, row: int, column: int, low: float, high: float) -> float:
        """Returns one cell as a number, NaN where it is empty or says so.

        Raises:
            ValueError: no number, or one outside [low, high].
        """
        text = self.columns[column][row]
        try:
            value = float(text)
        except ValueError:
            value = math.nan if _NOT_A_NUMBER.fullmatch(text) else math.inf
        if value < low or value > high:
            raise ValueError(
                f"{self.where(row)}: found '{text}' in column '{self.header[column]}', expected a number in "
                f"[{low:g}, {high:g}], or an empty cell where it is unknown"
            )
        return value

    def whole_number(self, row: int, column: int) -> int:
        """Returns one cell as a whole number from 0.

        Raises:
            ValueError: it is none.
        """
        value = self.number(row, column, 0, 2**53)
        if value != value or value != int(value):
            raise ValueError(
                f"{self.where(row)}: found '{self.columns[column][row]}' in column '{self.header[column]}', expected a "
                "whole number from 0"
            )
        return int(value)


def kept_columns(path: Path, header: Sequence[str], keep: Callable[[str], bool]) -> list[int]:
    """Returns the places of the columns that are needed.

    Args:
        path: the file, for errors.
        header: names of all columns.
        keep: whether a column is needed, given its name in lower case.

    Raises:
        ValueError: no name in the header, or one twice; for columns that are needed, in whatever case.
    """
    if not any(header):
        raise ValueError(f"{path}: found an empty file, expected a table with a header")
    seen: set[str] = set()
    places = []
    for place, name in enumerate(header):
        needed = keep(name.casefold())
        # OpenFace has x_0 in the picture and X_0 in space.
        spelt = name.casefold() if needed else name
        if name and (name in seen or spelt in seen):
            raise ValueError(f"{path}: found column '{name}' twice, expected it once")
        seen |= {name, spelt}
        if needed:
            places.append(place)
    return places


def keep_none(name: str) -> bool:
    """Needs no column."""
    return False
