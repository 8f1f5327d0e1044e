"""Cells of CSV files of action units, with errors that name file, line and column."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ID_COLUMNS = ("sample_id", "id", "image", "image_path", "image_name", "file", "filename", "file_name", "name", "input")
"""Columns in which tables name their pictures, the first that is there counts."""

_NOT_A_NUMBER = re.compile(r"(-?nan(\(ind\))?)?", re.IGNORECASE)  # as compilers of different makers print it


@dataclass(frozen=True)
class CsvCells:
    """A CSV file as text: header names without blanks around them.

    Attributes:
        path: the file.
        header: names of the columns.
        lines: cells by line of the file, as many as the header has.
    """

    path: Path
    header: tuple[str, ...]
    lines: dict[int, list[str]]

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

    def number(self, line: int, column: int, low: float, high: float) -> float:
        """Returns one cell as a number, NaN where it is empty or says so.

        Raises:
            ValueError: no number, or one outside [low, high].
        """
        text = self.lines[line][column]
        try:
            value = math.nan if _NOT_A_NUMBER.fullmatch(text) else float(text)
        except ValueError:
            value = math.inf
        if value < low or value > high:
            raise ValueError(
                f"{self.path} line {line}: found '{text}' in column '{self.header[column]}', expected a number in "
                f"[{low:g}, {high:g}]"
            )
        return value


def read_cells(path: Path) -> CsvCells:
    """Reads a CSV file.

    Raises:
        ValueError: no header, a column twice, broken CSV, or a line with another number of cells.
    """
    lines: dict[int, list[str]] = {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            header = tuple(name.strip() for name in next(reader, []))
            for cells in reader:
                if cells:
                    lines[reader.line_num] = [cell.strip() for cell in cells]
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.line_num}: found broken CSV ({error}), expected cells") from error
    if not any(header):
        raise ValueError(f"{path}: found an empty file, expected a CSV file with a header")
    _check_cells(path, header, lines)
    return CsvCells(path, header, lines)


def _check_cells(path: Path, header: Sequence[str], lines: dict[int, list[str]]) -> None:
    seen: set[str] = set()
    for name in header:
        if name.casefold() in seen and name:
            raise ValueError(f"{path}: found column '{name}' twice, expected it once")
        seen.add(name.casefold())
    for line, cells in lines.items():
        if len(cells) != len(header):
            raise ValueError(f"{path} line {line}: found {len(cells)} cells, expected {len(header)} as in the header")
