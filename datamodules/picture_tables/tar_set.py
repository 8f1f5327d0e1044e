"""Pictures with labels in WebDataset's archives: ``0001.jpg`` with ``0001.cls`` or ``0001.json`` in ``*.tar``."""

from __future__ import annotations

import json
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.captions.stored_image import PartOfFile
from datamodules.captions.tar_captions import archives_by_split, further_dots, key_and_ending
from datamodules.picture_tables.found_table import CodedColumn, FoundTable, TableColumns, TableFile
from datamodules.rows.image_files import image_suffixes
from datamodules.rows.picture_index import SETTLED_S
from synfer.foundation.file_reading import reading

_EXPECTED = "an uncompressed tar archive with pictures and labels"
_READ_AGAIN = 16


class TarSet:
    """``*.tar`` below a folder, or one archive; files of one key, the name up to its first dot, are one sample.

    Pictures stay in the archives. The label is the ``.cls``, or else its entry of the ``.json``.

    Args:
        path: folder or archive.
        columns: entries of the ``.json``; the image's is of no account.

    Raises:
        FileNotFoundError: no archive there.
    """

    def __init__(self, path: str, columns: TableColumns) -> None:
        self._columns = columns
        self._root, self._files = archives_by_split(path)
        self.splits = tuple(self._files)

    def table(self, split: str) -> FoundTable:
        """Returns the rows of one split.

        Raises:
            ValueError: an archive is damaged or compressed.
        """
        archives = []
        for name in self._files[split]:
            with (
                reading("set of pictures", self._root / name, _EXPECTED),
                tarfile.open(self._root / name, "r:") as opened,
            ):
                archives.append(_Archive(self._root, name, opened, self._columns))
        found = FoundTable.of_files(archives, archives)
        found.bad = [line for archive in archives for line in archive.bad]
        for archive in archives:
            for reason, count in archive.excluded.items():
                found.excluded[reason] = found.excluded.get(reason, 0) + count
        return found


class _Archive(TableFile):
    """One archive: where each picture lies in it, and what its other files say."""

    def __init__(self, root: Path, name: str, opened: tarfile.TarFile, columns: TableColumns) -> None:
        self._path, self._name, self._columns = root / name, name, columns
        self.bad: list[str] = []
        self.excluded: dict[str, int] = {}
        images: dict[str, tuple[int, int]] = {}
        entries: dict[str, dict[str, Any]] = {}
        classes: dict[str, str] = {}
        for member in opened:
            if member.isfile() and not Path(member.name).name.startswith("."):
                self._take(opened, member, images, entries, classes)
            opened.members = []  # type: ignore[attr-defined]  # it would keep a record of every file
        self._keys = pa.array(list(images), pa.string())
        self._offset = np.array([offset for offset, _ in images.values()], dtype=np.int64)
        self._size = np.array([size for _, size in images.values()], dtype=np.int64)
        of_row = [entries.get(key, {}) for key in images]
        labels = [classes.get(key, entry.get(columns.label)) for key, entry in zip(images, of_row, strict=True)]
        self.label = CodedColumn.of_values(labels)
        groups = None if columns.group is None else [entry.get(columns.group) for entry in of_row]
        self.groups = None if groups is None else CodedColumn.of_values(groups)
        self.affect = [CodedColumn.of_values([entry.get(name) for entry in of_row]) for name in columns.affect]
        names = self._keys
        if columns.sample_id is not None:
            named = [entry.get(columns.sample_id) for entry in of_row]
            names = pa.array([None if one is None else str(one) for one in named], pa.string())
        self.names = pa.chunked_array([names], pa.string())
        lonely = len((entries.keys() | classes.keys()) - images.keys())
        if lonely:
            self.excluded[f"texts without a picture in {name}"] = lonely
        status = self._path.stat()
        self.identity = str(self._path.absolute())
        settled = time.time() - status.st_mtime >= SETTLED_S
        self.state = f"{status.st_size}\0{status.st_mtime_ns}" if settled else None

    def __len__(self) -> int:
        return len(self._offset)

    def read(self, row: int) -> bytes | None:
        """Returns the content of a picture's file."""
        return PartOfFile(self._path, int(self._offset[row]), int(self._size[row])).read()

    def place(self, row: int) -> str:
        """Returns archive and key."""
        return f"{self._name}#{self._keys[row].as_py()}"

    def again(self, random: np.random.Generator) -> list[tuple[int, bytes | None]]:
        """Returns some rows."""
        return [(row, self.read(row)) for row in random.permutation(len(self))[:_READ_AGAIN].tolist()]

    def _take(
        self,
        opened: tarfile.TarFile,
        member: tarfile.TarInfo,
        images: dict[str, tuple[int, int]],
        entries: dict[str, dict[str, Any]],
        classes: dict[str, str],
    ) -> None:
        key, ending = key_and_ending(member.name)
        where = f"{self._path}: '{member.name}'"
        if f".{ending}" in image_suffixes():
            if key in images:
                self.bad.append(f"{where}: found a second picture of key '{key}', expected one")
            images.setdefault(key, (member.offset_data, member.size))
        elif ending in ("json", "cls"):
            file = opened.extractfile(member)
            content = b"" if file is None else file.read()
            try:
                if ending == "cls":
                    classes[key] = content.decode("utf-8-sig", "replace").strip()
                else:
                    entry = json.loads(content.decode("utf-8-sig"))
                    entries[key] = entry if isinstance(entry, dict) else {}
            except ValueError:  # no UTF-8, or no JSON
                self.bad.append(f"{where}: found no JSON, expected an entry with the label")
        elif Path(member.name).suffix.lower() in image_suffixes():
            self.bad.append(further_dots(where, key, ending))
        else:
            reason = f"neither picture nor label, by the ending '{ending}'"
            self.excluded[reason] = self.excluded.get(reason, 0) + 1
