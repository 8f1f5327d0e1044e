"""A plain CSV file of action units, for tools without a format of their own here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.au_tables.au_table import NamedRows, action_unit_of
from datamodules.au_tables.csv_cells import ID_COLUMNS, read_cells

_LIKE_ONE = re.compile(r"au[_ ]?[lr]?[_ ]?\d")


class CsvTable:
    """Reads one CSV file: a column that names the pictures, and one per action unit.

    Action units are called ``AU12``, ``au_12`` or ``AU012``, one-sided ones ``AUL12`` and ``AUR12``. Values lie in
    [0, 1]; an empty cell or ``nan`` is unknown. Other columns do not matter.

    Args:
        path: the file.
        id_column: column that names the pictures; None = the first that is there of ``sample_id``, ``id``, ``image``,
            ``image_path``, ``image_name``, ``file``, ``filename``, ``file_name``, ``name`` and ``input``.

    Attributes:
        names: A action units in the order of the file.

    Raises:
        ValueError: no such columns, a value that is no number in [0, 1], a picture or an action unit twice.
    """

    def __init__(self, path: Path, id_column: str | None = None) -> None:
        cells = read_cells(path)
        place = cells.id_column(id_column)
        if place is None:
            raise ValueError(
                f"{path}: found no column that names the pictures ({cells.columns_found}), expected one "
                f"of {', '.join(ID_COLUMNS)}, or data.au_table.id_column"
            )
        columns = {column: name for column, text in enumerate(cells.header) if (name := action_unit_of(text))}
        odd = [t for c, t in enumerate(cells.header) if c not in columns and _LIKE_ONE.match(t.casefold())]
        if odd or not columns:
            what = f"column '{odd[0]}'" if odd else f"no column of an action unit ({cells.columns_found})"
            raise ValueError(
                f"{path}: found {what}, expected names such as AU12 or AUL12; for files that OpenFace has written "
                "data.au_table.format=openface"
            )
        values = [[cells.number(line, column, 0, 1) for column in columns] for line in cells.lines]
        ids = [line[place] for line in cells.lines.values()]
        array = np.array(values, dtype=np.float32).reshape(len(ids), len(columns))
        self._rows = NamedRows(str(path), list(columns.values()), ids, array)
        self.names = self._rows.names

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the action units of n pictures, see :meth:`NamedRows.read`."""
        return self._rows.read(ids)
