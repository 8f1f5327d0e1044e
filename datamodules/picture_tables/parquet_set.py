"""Parquet files with pictures: small columns in memory, pictures in a store beside the indexes, or in memory if few."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.captions.parquet_captions import label_names, parquet_by_split
from datamodules.captions.row_groups import image_bytes
from datamodules.picture_tables.found_table import Cells, CodedColumn, FoundTable, TableColumns, TableFile
from datamodules.picture_tables.picture_store import PictureStore, open_store, write_store
from datamodules.rows.picture_index import SETTLED_S, index_folder, only_one
from synfer.foundation.file_reading import reading
from synfer.foundation.on_rank_zero import warn_on_rank_zero

_EXPECTED = "a Parquet file with pictures and labels"
IN_MEMORY = 64 * 2**20
"""Bytes of encoded pictures of a split up to which they are held in memory."""

_READ_AGAIN = 16  # rows of a file that are read past the store at each start
_ROWS_AT_ONCE = 256


class ParquetSet:
    """Parquet files below a folder, or one file, anywhere that ``fsspec`` reaches.

    Up to :data:`IN_MEMORY` of pictures are held in memory. Those of larger local sets are copied once, as they are, to
    a store in the folder of the indexes (``$SYNFER_INDEX_DIR``); where none may be kept, where the disk is full or the
    files are remote, they are held in memory after all, with a warning.

    Args:
        path: folder, file or URL.
        columns: which of them hold what.

    Raises:
        FileNotFoundError: nothing there.
    """

    def __init__(self, path: str, columns: TableColumns) -> None:
        self._path, self._columns = path, columns
        self._filesystem, self._root, self._files = parquet_by_split(path)
        self.splits = tuple(self._files)

    def table(self, split: str) -> FoundTable:
        """Returns the rows of one split; the pictures are copied to their stores where these are not there yet.

        Raises:
            ValueError: a file is damaged, or lacks a column.
        """
        files = []
        for name in self._files[split]:
            with reading("set of pictures", f"{self._path}: {name}", _EXPECTED):
                files.append(_File(self._filesystem, self._root, name, self._columns))
        stored = sum(file.bytes_of_pictures for file in files) > IN_MEMORY
        if stored and not all(file.local for file in files):
            warn_on_rank_zero(
                f"'{self._path}': found {sum(file.bytes_of_pictures for file in files) / 2**30:.1f} GiB of pictures on "
                "another machine, which every process holds in memory: copied to this one they stay on its disk"
            )
            stored = False
        cells: list[Cells] = []
        for file in files:
            with reading("set of pictures", f"{self._path}: {file.name}", _EXPECTED):
                cells.append(_Cells(file.name, file.store() if stored else file.in_memory()))
        pa.default_memory_pool().release_unused()  # what decoding the columns has left
        return FoundTable.of_files(files, cells)


class _File(TableFile):
    """One Parquet file: its small columns, and ways to its pictures.

    Args:
        filesystem: where it lies.
        root: folder of the set.
        name: of the file, below it.
        columns: which of them hold what.
    """

    def __init__(self, filesystem: Any, root: str, name: str, columns: TableColumns) -> None:
        self.name, self._filesystem, self._place = name, filesystem, f"{root}/{name}"
        protocol = filesystem.protocol
        self.local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)
        with filesystem.open(self._place, "rb") as opened:
            file = pq.ParquetFile(opened)
            schema = file.schema_arrow
            columns = columns.among(schema.names, f"'{name}'")
            self._image = str(columns.image)
            self.rows = file.metadata.num_rows
            self._groups = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            self.bytes_of_pictures = _bytes_of(file.metadata, self._image)
            wanted = {columns.label, *columns.also()}
            image_type = schema.field(self._image).type
            has_path = pa.types.is_struct(image_type) and image_type.get_field_index("path") >= 0
            if has_path and columns.sample_id is None:
                wanted.add(f"{self._image}.path")
            table = file.read(columns=sorted(wanted))
        self.label = CodedColumn.of(table[columns.label]).named(label_names(schema, columns.label))
        self.groups = None if columns.group is None else CodedColumn.of(table[columns.group])
        self.affect = [CodedColumn.of(table[column]) for column in columns.affect]
        if columns.sample_id is not None:
            self.names = table[columns.sample_id].cast(pa.string())
        elif has_path:
            paths = [chunk.field("path").cast(pa.string()) for chunk in table[self._image].chunks]
            self.names = pa.chunked_array(paths, pa.string())
        else:
            self.names = pa.chunked_array([pa.nulls(self.rows, pa.string())])
        self.identity = f"{Path(self._place).absolute() if self.local else self._place}\0{self._image}"
        self.state = _state_of(Path(self._place)) if self.local else None
        self._read_again: list[tuple[int, bytes | None]] | None = None

    def __len__(self) -> int:
        return self.rows

    def in_memory(self) -> list[bytes | None]:
        """Returns the pictures, each once: Parquet packs those that repeat, and its size does not tell."""
        known: dict[bytes | None, bytes | None] = {}
        return [known.setdefault(picture, picture) for picture in self._pictures()]

    def store(self) -> PictureStore | list[bytes | None]:
        """Returns the pictures in their store, made where it is not there yet; in memory where none can be kept."""
        folder = index_folder()
        if folder is None:
            return self._instead("no folder for a copy of them may be written (SYNFER_INDEX_DIR)")
        if self.state is None:
            return self._instead("it has been written a moment ago, and may change again")
        path = folder / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}.pictures"
        found = self._stored(path)
        if found is not None:
            return found
        with only_one(path):
            found = self._stored(path)  # another rank may have been here
            if found is None:
                if shutil.disk_usage(folder).free < 1.1 * self.bytes_of_pictures:
                    return self._instead(f"'{folder}' has no room for a copy of them")
                try:
                    write_store(path, self.state, self._pictures())
                except OSError as error:
                    return self._instead(f"a copy of them cannot be written ({error.strerror or error})")
                found = self._stored(path)
        return self._instead("the copy of them cannot be read") if found is None else found

    def again(self, random: np.random.Generator) -> list[tuple[int, bytes | None]]:
        """Returns the first rows of one row group, read from the file itself; the same ones each time."""
        filled = [g for g, rows in enumerate(self._groups) if rows]
        if self._read_again is None and filled:
            group = int(random.choice(filled))
            start = sum(self._groups[:group])
            with self._filesystem.open(self._place, "rb") as opened:
                batches = pq.ParquetFile(opened).iter_batches(_READ_AGAIN, row_groups=[group], columns=[self._image])
                cells = next(batches).column(0)  # and no more of it: a group may be as large as the memory
            self._read_again = [(start + row, image_bytes(cell.as_py())) for row, cell in enumerate(cells)]
        return self._read_again or []

    def _stored(self, path: Path) -> PictureStore | None:
        """Returns the store where it is there, of this state of the file, and holds what the file holds."""
        found = open_store(path, str(self.state), self.rows)
        if found is None:
            return None
        try:
            same = all(found.read(row) == (content or None) for row, content in self.again(np.random.default_rng()))
        except OSError:
            same = False
        return found if same else None

    def _pictures(self) -> Iterator[bytes | None]:
        with self._filesystem.open(self._place, "rb") as opened:
            for batch in pq.ParquetFile(opened).iter_batches(_ROWS_AT_ONCE, columns=[self._image]):
                yield from (image_bytes(cell.as_py()) for cell in batch.column(0))

    def _instead(self, why: str) -> list[bytes | None]:
        warn_on_rank_zero(
            f"'{self._place}': {why}: its {self.bytes_of_pictures / 2**20:.0f} MiB of pictures are held in memory, by "
            "every rank and loader process"
        )
        return self.in_memory()


class _Cells:
    """The pictures of one file, wherever they are held."""

    def __init__(self, name: str, pictures: PictureStore | list[bytes | None]) -> None:
        self._name, self._pictures = name, pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, row: int) -> bytes | None:
        """Returns the content of a picture's file."""
        return self._pictures.read(row) if isinstance(self._pictures, PictureStore) else self._pictures[row]

    def place(self, row: int) -> str:
        """Returns file and row."""
        return f"{self._name}#{row}"


def _bytes_of(metadata: pq.FileMetaData, column: str) -> int:
    """Returns the bytes of a column, before compression."""
    total = 0
    for group in range(metadata.num_row_groups):
        of_group = metadata.row_group(group)
        for place in range(of_group.num_columns):
            if of_group.column(place).path_in_schema.split(".")[0] == column:
                total += of_group.column(place).total_uncompressed_size
    return total


def _state_of(path: Path) -> str | None:
    """Returns length and time of change of a file; None where it is just being written."""
    status = path.stat()
    settled = time.time() - status.st_mtime >= SETTLED_S
    return f"{status.st_size}\0{status.st_mtime_ns}" if settled else None
