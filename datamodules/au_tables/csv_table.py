"""A plain table of action units, CSV or Parquet, for tools without a format of their own here."""

from __future__ import annotations

from pathlib import Path

from datamodules.au_tables.au_source import AUScale
from datamodules.au_tables.au_table import NamedRows
from datamodules.au_tables.table_cells import TableCells
from datamodules.au_tables.tool_rows import ToolProfile, read_tool_rows

_EXPECTED = "expected names such as AU12 or AUL12; for files that OpenFace has written data.au_table.format=openface"


class CsvTable(NamedRows):
    """Reads a table with a column that names the pictures, and one per action unit; or a folder of such tables.

    Action units are called ``AU12``, ``au_12`` or ``AU012``, one-sided ones ``AUL12`` and ``AUR12``. Values lie in
    [0, 1]; an empty cell or ``nan`` is unknown. Other columns do not matter.

    Args:
        path: the file.
        id_column: column that names the pictures; None = the first that is there of ``sample_id``, ``id``, ``image``,
            ``image_path``, ``image_name``, ``file``, ``filename``, ``file_name``, ``name`` and ``input``.
        id_template: name of the picture of a row (:class:`datamodules.au_tables.picture_names.PictureNames`), of the
            number of the row or of a column ``frame``.

    Attributes:
        names: A action units in the order of the file.

    Raises:
        ValueError: no such columns, a value that is no number in [0, 1], a picture or an action unit twice.
    """

    def __init__(self, path: Path, id_column: str | None = None, id_template: str | None = None) -> None:
        rows = read_tool_rows(path, _profile, id_column, id_template, ("frame",))
        super().__init__(str(path), [column.name for column in rows.source.columns], *rows)


def _profile(cells: TableCells) -> ToolProfile:
    return ToolProfile("plain table", {"": AUScale("as given")}, _EXPECTED, refused=_EXPECTED)
