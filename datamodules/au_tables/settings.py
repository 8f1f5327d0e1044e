"""Which table of action units a run joins to its rows: the settings, and the tool behind each name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from datamodules.au_tables.au_table import AUTable, NamedRows, action_unit_of, looks_like_one
from datamodules.au_tables.csv_table import CsvTable
from datamodules.au_tables.libreface import LibreFaceTable
from datamodules.au_tables.openface import OpenFaceTable
from datamodules.au_tables.opengraphau import VECTOR_FILES, OpenGraphAUTable, has_vectors
from datamodules.au_tables.picture_names import PictureNames
from datamodules.au_tables.pyfeat import PyFeatTable
from datamodules.au_tables.table_files import TABLE_FILES, read_header, table_files

AU_TABLES: dict[str, Callable[..., AUTable]] = {
    "csv": CsvTable,
    "openface": OpenFaceTable,
    "pyfeat": PyFeatTable,
    "libreface": LibreFaceTable,
    "opengraphau": OpenGraphAUTable,
}
"""Format → what opens a table of it, given its path, the column that names the pictures (None = a usual one) and, where
one is set, the template of their names. One with ``recognises(header)`` is found by the names of the columns."""

AUTO = "auto"
"""The format that is found by the header."""


@dataclass(frozen=True)
class AUTableSettings:
    """Where the action units of the rows are, for data sets that come without.

    Attributes:
        path: file or folder.
        format: "auto" = by the names of the columns; "openface", "pyfeat", "libreface" = output of these tools, a file
            per picture or one for all; "opengraphau" = vectors of 41 numbers; "csv" = a plain table, CSV or Parquet,
            with a column of names and columns AU1, AU2, … in [0, 1].
        id_column: column that names the pictures by sample id, path or file name; null = a usual one (``image``, …).
        id_template: name of the picture of a row where no column has it, such as "{file}/{frame:05d}.jpg" for frames of
            a video or "fer2013-{row}": {row} counts from 0, {frame} is as the tool wrote it, {frame0} and {frame1}
            count from 0 and 1, {file} is the table's name, {name} the cell that names the video.

    Raises:
        ValueError: an unknown format, or a template that makes no names.
        FileNotFoundError: nothing at that path.
    """

    path: str
    format: str = AUTO
    id_column: str | None = None
    id_template: str | None = None

    def __post_init__(self) -> None:
        if self.format not in (AUTO, *AU_TABLES):
            known = ", ".join(sorted(AU_TABLES))
            raise ValueError(f"data.au_table.format: found '{self.format}', expected {AUTO} or one of {known}")
        if not Path(self.path).exists():
            raise FileNotFoundError(f"data.au_table.path '{self.path}': no such file or folder, expected action units")
        if self.id_template is not None:
            PictureNames(self.id_template)

    def open(self) -> AUTable:
        """Reads the table, and says what it is.

        Raises:
            ValueError: it is damaged, of another format, or of none that is known.
        """
        path = Path(self.path)
        try:
            name = detect_format(path) if self.format == AUTO else self.format
            opener, arguments = AU_TABLES[name], [path, self.id_column]
            if self.id_template is not None:
                if len(signature(opener).parameters) < 3:
                    raise ValueError(f"id_template: found '{self.id_template}', expected null for format '{name}'")
                arguments.append(self.id_template)
            table = opener(*arguments)
        except ValueError as error:
            said = str(error)
            raise ValueError(said if said.startswith("data.au_table") else f"data.au_table: {said}") from error
        if isinstance(table, NamedRows):
            table.source = replace(table.source, format=name, detected=self.format == AUTO)
            rank_zero_info(f"data.au_table: {self.path}: {table.source}")
        return table


def detect_format(path: Path) -> str:
    """Returns the entry of ``AU_TABLES`` that reads a table, by its header; of a folder, by that of its first file.

    Raises:
        ValueError: no column of an action unit, or one that several tools might have written.
    """
    first = table_files(path, tuple(dict.fromkeys((*TABLE_FILES, *VECTOR_FILES))))[0]
    if has_vectors(first):
        return "opengraphau"
    header = read_header(first)
    found = [name for name, table in AU_TABLES.items() if getattr(table, "recognises", _never)(header)]
    if len(found) > 1:
        raise ValueError(f"{first}: found columns of {' and of '.join(found)}, expected data.au_table.format=…")
    if not found and not any(action_unit_of(text) or looks_like_one(text) for text in header):
        raise ValueError(
            f"{first}: found no column of an action unit (found {', '.join(header)[:120]}), expected names such as "
            f"AU12, or a table of one of {', '.join(AU_TABLES)}"
        )
    return found[0] if found else "csv"


def _never(header: object) -> bool:
    return False
