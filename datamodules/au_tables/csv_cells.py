"""Cells of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.au_tables.table_cells import TableCells, keep_none, kept_columns

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def csv_header(path: Path) -> tuple[str, ...]:
    """Returns the names of the columns, without blanks around them.

    Raises:
        ValueError: no header, or a column twice.
    """
    with _opened(path) as reader:
        header = _header(path, reader)
    kept_columns(path, header, keep_none)
    return header


def read_csv(path: Path, keep: Callable[[str], bool]) -> TableCells:
    """Reads the columns of a CSV file that are needed, cells without blanks around them.

    Args:
        path: the file.
        keep: whether the cells of a column are needed, given its name in lower case.

    Raises:
        ValueError: no header, a column twice, broken CSV, or a line with another number of cells.
    """
    lines: list[int] = []
    with _opened(path) as reader:
        header = _header(path, reader)
        columns: dict[int, list[str]] = {place: [] for place in kept_columns(path, header, keep)}
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{path} line {reader.line_num}: found {len(cells)} cells, expected {len(header)} as in the header"
                )
            lines.append(reader.line_num)
            for place, column in columns.items():
                column.append(cells[place].strip())
    return TableCells(path, header, columns, lines)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            yield reader
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.line_num}: found broken CSV ({error}), expected cells") from error


def _header(path: Path, reader: Any) -> tuple[str, ...]:
    header: Sequence[str] = tuple(name.strip() for name in next(reader, []))
    for separator, name in _OTHER_SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise ValueError(f"{path}: found columns separated by {name} ('{header[0][:40]}…'), expected commas")
    return tuple(header)
