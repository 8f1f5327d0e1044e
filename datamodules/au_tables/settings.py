"""Which table of action units a run joins to its rows: the settings, and the tool behind each name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datamodules.au_tables.au_table import AUTable
from datamodules.au_tables.csv_table import CsvTable
from datamodules.au_tables.openface import OpenFaceTable

AU_TABLES: dict[str, Callable[[Path, str | None], AUTable]] = {"csv": CsvTable, "openface": OpenFaceTable}
"""Format → what opens a table of it, given its path and the column that names the pictures (None = a usual one)."""


@dataclass(frozen=True)
class AUTableSettings:
    """Where the action units of the rows are, for data sets that come without.

    Attributes:
        path: file or folder.
        format: "openface" = output of OpenFace, a file per picture or one with a column of names added; "csv" = a
            column of names and columns AU1, AU2, … in [0, 1].
        id_column: column that names the pictures by sample id, path or file name; null = a usual one (``image``, …).

    Raises:
        ValueError: an unknown format.
        FileNotFoundError: nothing at that path.
    """

    path: str
    format: str = "csv"
    id_column: str | None = None

    def __post_init__(self) -> None:
        if self.format not in AU_TABLES:
            raise ValueError(f"data.au_table.format: found '{self.format}', expected {' or '.join(sorted(AU_TABLES))}")
        if not Path(self.path).exists():
            raise FileNotFoundError(f"data.au_table.path '{self.path}': no such file or folder, expected action units")

    def open(self) -> AUTable:
        """Reads the table.

        Raises:
            ValueError: it is damaged, or of another format.
        """
        try:
            return AU_TABLES[self.format](Path(self.path), self.id_column)
        except ValueError as error:
            raise ValueError(f"data.au_table: {error}") from error
