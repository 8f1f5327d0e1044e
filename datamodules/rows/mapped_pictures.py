"""Encoded pictures of Parquet files as an image source without an object for each row.

A file of any size costs no memory: its pictures are written once, as they are encoded, to an Arrow file beside the
indexes, which is mapped. Small files are held.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from datamodules.captions.stored_image import stacked
from datamodules.rows.images import decode_image
from datamodules.rows.picture_index import index_folder, only_one
from synfer.foundation.atomic_file import atomic_write

_HELD = 32 * 2**20
"""Bytes of a file's pictures up to which they are held in memory."""

_FORMAT = "synfer pictures 1"


class PictureColumn:
    """The pictures of one Parquet file, by row.

    Args:
        path: the file.
        column: of pictures, as bytes or as the struct of ``datasets``.
    """

    def __init__(self, path: Path, column: str) -> None:
        self.path, self._column = path, column
        self._open()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, row: int) -> bytes | None:
        """Returns the encoded picture of a row; None where there is none."""
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        content: bytes | None = self._chunks[chunk][row - int(self._starts[chunk])].as_py()
        return content

    def _open(self) -> None:
        with pq.ParquetFile(self.path) as file:
            place = self._mapped(file)
            if place is None:
                self._chunks = [_pictures(file, group, self._column) for group in range(file.num_row_groups)]
            else:
                mapped = pa.ipc.open_file(pa.memory_map(str(place)))
                self._chunks = [mapped.get_batch(n).column(0) for n in range(mapped.num_record_batches)]
        self._starts = np.cumsum([0, *map(len, self._chunks)])

    def _mapped(self, file: pq.ParquetFile) -> Path | None:
        """Returns the Arrow file of these pictures, which is written where there is none; None = they are held."""
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        folder = index_folder()
        # What repeats is stored once in Parquet and is as large as ever when it is read.
        is_small = sum(group.total_byte_size for group in groups) <= _HELD and file.metadata.num_rows <= _HELD // 512
        if folder is None or is_small:
            return None
        status = self.path.stat()
        name = f"{_FORMAT}\0{self.path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0{self._column}"
        place = folder / f"pictures-{hashlib.sha256(name.encode()).hexdigest()[:16]}.arrow"
        with only_one(place):
            if _rows_in(place) == file.metadata.num_rows:
                return place
            with contextlib.suppress(OSError), atomic_write(place) as new:  # a full disk costs memory, not the run
                schema = pa.schema([("picture", pa.large_binary())])
                with pa.ipc.new_file(str(new), schema) as writer:
                    for group in range(file.num_row_groups):
                        writer.write(pa.record_batch([_pictures(file, group, self._column)], schema=schema))
                return place
        return None

    def __getstate__(self) -> dict[str, object]:
        """A process that is started anew maps the file for itself."""
        return {"path": self.path, "_column": self._column}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()


def _pictures(file: pq.ParquetFile, group: int, column: str) -> pa.Array:
    """Returns the encoded pictures of one row group as large binary."""
    cells = file.read_row_group(group, columns=[column])[column].combine_chunks()
    if isinstance(cells, pa.ChunkedArray):
        cells = pa.concat_arrays(cells.chunks) if cells.num_chunks else pa.array([], cells.type)
    if pa.types.is_struct(cells.type):
        has_bytes = cells.type.get_field_index("bytes") >= 0
        cells = pc.struct_field(cells, "bytes") if has_bytes else pa.nulls(len(cells), pa.binary())
    kind = cells.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return pa.nulls(len(cells), pa.large_binary())
    return cells.cast(pa.large_binary())


def _rows_in(place: Path) -> int:
    """Returns the rows of an Arrow file; −1 where there is none that can be read."""
    try:
        with pa.memory_map(str(place)) as source:
            file = pa.ipc.open_file(source)
            return sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))
    except (OSError, pa.ArrowException):
        return -1


class MappedPictures:
    """Pictures of several Parquet files, decoded when asked for.

    Args:
        columns: one for each file.
        names: of the files, for errors.
        owner: number of the file of each row, (N,).
        row: of each in its file, (N,).
        image_size: side in pixels to which they are cut and resized; None = all have one size.
    """

    def __init__(
        self,
        columns: Sequence[PictureColumn],
        names: Sequence[str],
        owner: np.ndarray,
        row: np.ndarray,
        image_size: int | None = None,
    ) -> None:
        self._columns, self._names, self._image_size = list(columns), list(names), image_size
        self._owner, self._row = owner.astype(np.int32), row.astype(np.int32)

    def __len__(self) -> int:
        return len(self._row)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 3, H, W), RGB, also of grey pictures: a set may hold both."""
        return stacked([self.whole(row) for row in rows.tolist()], self._image_size)

    def select(self, rows: np.ndarray) -> MappedPictures:
        """Returns the images of these rows, in this order."""
        return MappedPictures(self._columns, self._names, self._owner[rows], self._row[rows], self._image_size)

    def whole(self, row: int) -> np.ndarray:
        """Returns the picture of one row as it is stored, uint8 (H, W) or (H, W, 3)."""
        return decode_image(self._columns[self._owner[row]].read(int(self._row[row])), self.place(row))

    def place(self, row: int) -> str:
        """Returns where the picture of one row stands."""
        return f"{self._names[self._owner[row]]}#{self._row[row]}"
