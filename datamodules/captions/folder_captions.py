"""Sets of captions in a folder of pictures: ``captions.csv`` or ``captions.jsonl`` names each file and its caption."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.captions.caption_row import CaptionColumns, CaptionRow, FoundRows
from datamodules.captions.split_names import split_of
from datamodules.captions.stored_image import FileOnDisk
from datamodules.rows.image_files import image_suffixes
from synfer.foundation.file_reading import FileError, reading

TABLES = tuple(f"{name}{ending}" for name in ("captions", "metadata") for ending in (".csv", ".jsonl"))
"""Names of the file that says which caption a picture has; the latter is what ``datasets`` looks for."""


class FolderCaptions:
    """``<path>/captions.csv`` for all, or one in each folder of a split, with ``file_name`` and ``caption``.

    Names of files are taken from the folder of the table. Pictures stay on disk and are read when asked for.

    Args:
        path: folder.
        columns: which columns of the tables hold what; the image's is the name of the file.

    Raises:
        FileNotFoundError: no such table.
        ValueError: two of them in one folder.
    """

    def __init__(self, path: str, columns: CaptionColumns) -> None:
        self._root, self._columns = Path(path), columns
        self._tables: dict[str, list[Path]] = {}
        for folder in [self._root, *sorted(p for p in self._root.iterdir() if p.is_dir())]:
            tables = [folder / name for name in TABLES if (folder / name).is_file()]
            if len(tables) > 1:
                raise ValueError(
                    f"data.reader.init_args.path: found {' and '.join(t.name for t in tables)} in '{folder}', expected "
                    "one of them"
                )
            for table in tables:
                self._tables.setdefault(split_of(table.relative_to(self._root).as_posix()), []).append(table)
        if not self._tables:
            raise FileNotFoundError(
                f"data.reader.init_args.path: found no {', '.join(TABLES)} in '{path}' or its folders, expected one"
            )
        self.splits = tuple(self._tables)

    def rows(self, split: str) -> FoundRows:
        """Returns the rows of one split; pictures that no row names are counted.

        Raises:
            ValueError: a table is damaged, or lacks a column.
        """
        found = FoundRows()
        for table in self._tables[split]:
            named: set[Path] = set()
            with reading("captions", table, "a table with file_name and caption"):
                for number, (where, cell) in enumerate(_cells(table)):
                    columns = self._columns.among([str(name) for name in cell], where)
                    assert columns.image is not None and columns.caption is not None
                    if not isinstance(cell[columns.image], str) or not cell[columns.image].strip():
                        found.bad.append(f"{where}: found no name of a file, expected one in '{columns.image}'")
                        continue
                    path = table.parent / cell[columns.image].strip()
                    named.add(path)
                    name = cell[columns.sample_id] if columns.sample_id is not None else _inside(path, self._root)
                    found.rows.append(
                        CaptionRow(
                            name="" if name is None else str(name),
                            place=f"{_inside(table, self._root)}#{number}",
                            image=FileOnDisk(path),
                            caption=cell[columns.caption],
                            label=(cell[columns.label] or None) if columns.label is not None else None,
                        )
                    )
            deeper = [t.parent for some in self._tables.values() for t in some if table.parent in t.parent.parents]
            left = [
                path
                for path in table.parent.rglob("*")
                if path.suffix.lower() in image_suffixes()
                and path not in named
                and not any(path.is_relative_to(folder) for folder in deeper)
            ]
            if left:
                reason = f"pictures that {_inside(table, self._root)} does not name (the first is {min(left).name})"
                found.excluded[reason] = len(left)
        return found


def _cells(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where a row stands and its cells by name."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        if table.suffix == ".csv":
            for number, row in enumerate(csv.DictReader(file)):
                yield f"{table} row {number}", {name: value for name, value in row.items() if name is not None}
            return
        for number, line in enumerate(file):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise FileError(f"{table} line {number + 1}: found {line.strip()[:40]}, expected a JSON object")
                yield f"{table} line {number + 1}", row


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
