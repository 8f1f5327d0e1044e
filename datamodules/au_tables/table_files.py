"""Files of tables of action units: which there are, what their columns are called, and their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.au_tables.csv_cells import csv_header, read_csv
from datamodules.au_tables.parquet_cells import parquet_header, read_parquet
from datamodules.au_tables.table_cells import TableCells

TABLE_FILES = (".csv", ".parquet")
"""Endings of the files of a folder that are read."""

_OTHERS = {
    b"\x80": "a pickle",
    b"PK": "a zip file or a spreadsheet",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"[": "JSON",
    b"{": "JSON",
}
"""How files begin that are no tables, and what they are."""


def table_files(path: Path, endings: Sequence[str] = TABLE_FILES) -> list[Path]:
    """Returns the file itself, or the files of a folder and of the folders in it, sorted, hidden ones left out.

    Raises:
        ValueError: a folder without any.
    """
    if not path.is_dir():
        return [path]
    files = [f for f in sorted(path.rglob("*")) if f.suffix.casefold() in endings and not f.name.startswith(".")]
    if not files:
        raise ValueError(
            f"{path}: found no *{endings[0]} in the folder, nor *{', *'.join(endings[1:])}, expected a tool's output, "
            "a file per picture"
        )
    return files


def read_cells(path: Path, keep: Callable[[str], bool] = lambda name: True) -> TableCells:
    """Reads a table.

    Args:
        path: CSV or Parquet, told by its first bytes.
        keep: whether the cells of a column are needed, given its name in lower case: tables of videos have a thousand
            columns of landmarks.

    Raises:
        ValueError: no header, a column twice, damaged content, or a line with another number of cells.
    """
    return (read_parquet if _is_parquet(path) else read_csv)(path, keep)


def read_header(path: Path) -> tuple[str, ...]:
    """Returns the names of the columns alone, without blanks around them.

    Raises:
        ValueError: no header, a column twice, or damaged content.
    """
    return (parquet_header if _is_parquet(path) else csv_header)(path)


def _is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does, whatever its name.

    Raises:
        ValueError: it begins as something that is no table.
    """
    with path.open("rb") as file:
        start = file.read(4)
    for beginning, what in _OTHERS.items():
        if start.startswith(beginning):
            raise ValueError(f"{path}: found {what}, expected CSV (UTF-8) or Parquet with a header")
    return start == b"PAR1"
