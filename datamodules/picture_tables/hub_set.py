"""Sets with pictures that the package ``datasets`` loads: by Hub id, or as it saves them to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.captions.hub_captions import sets_by_split
from datamodules.captions.stored_image import DatasetImage
from datamodules.picture_tables.found_table import CodedColumn, FoundTable, TableColumns, TableFile

_READ_AGAIN = 16


class HubSet:
    """A data set of the Hub (fetched once into the cache of ``datasets``), or a folder of ``save_to_disk``.

    ``HF_HUB_OFFLINE=1`` keeps it to what the cache has. Pictures stay in the memory-mapped tables.

    Args:
        path: Hub id or folder.
        columns: which of them hold what.
        revision: branch, tag or commit; None = the newest.

    Raises:
        FileNotFoundError: it cannot be loaded.
    """

    def __init__(self, path: str, columns: TableColumns, revision: str | None = None) -> None:
        self._path, self._columns = path, columns
        self._sets = sets_by_split(path, revision)
        self.splits = tuple(self._sets)

    def table(self, split: str) -> FoundTable:
        """Returns the rows of one split.

        Raises:
            ValueError: a column is missing.
        """
        sets = [_Set(name, rows, self._columns, self._path) for name, rows in self._sets[split]]
        return FoundTable.of_files(sets, sets)


class _Set(TableFile):
    """One ``datasets.Dataset``."""

    def __init__(self, name: str, rows: Any, columns: TableColumns, path: str) -> None:
        from datasets import Image

        columns = columns.among(list(rows.column_names), f"'{path}', {name}")
        self._name, self._image = name, str(columns.image)
        self._pictures = rows.cast_column(self._image, Image(decode=False)).select_columns([self._image])
        table = rows.select_columns(sorted({columns.label, *columns.also()})).with_format("arrow")[:]
        self.label = CodedColumn.of(table[columns.label]).named(
            getattr(rows.features.get(columns.label), "names", None)
        )
        self.groups = None if columns.group is None else CodedColumn.of(table[columns.group])
        self.affect = [CodedColumn.of(table[column]) for column in columns.affect]
        if columns.sample_id is None:
            self.names = pa.chunked_array([pa.nulls(len(rows), pa.string())])
        else:
            self.names = table[columns.sample_id].cast(pa.string())
        self.identity = f"{path}\0{name}\0{self._image}"
        self.state = _state_of(rows)

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, row: int) -> bytes | None:
        """Returns the content of a picture's file."""
        return DatasetImage(self._pictures, self._image, row).read()

    def place(self, row: int) -> str:
        """Returns split and row."""
        return f"{self._name}#{row}"

    def again(self, random: np.random.Generator) -> list[tuple[int, bytes | None]]:
        """Returns some rows."""
        return [(row, self.read(row)) for row in random.permutation(len(self))[:_READ_AGAIN].tolist()]


def _state_of(rows: Any) -> str | None:
    """Returns fingerprint, files and their times of change; None where the rows lie in no file."""
    files = sorted(str(one["filename"]) for one in rows.cache_files)
    if not files:
        return None
    try:
        status = [Path(file).stat() for file in files]
    except OSError:
        return None
    told = [f"{file}\0{one.st_size}\0{one.st_mtime_ns}" for file, one in zip(files, status, strict=True)]
    return "\0".join([str(rows._fingerprint), *told])
