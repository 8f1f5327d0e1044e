"""What decoding each picture of a table told, kept on disk a file at a time: a later start decodes a few of them.

As :mod:`datamodules.rows.picture_index`, for pictures that lie in tables: size and content hash of each row of a file,
good for as long as the file has the length and the time of change that it had. At each start some rows are read from
the file itself and decoded; where one of them is another than the index says, all of that file are decoded again. Bad
pictures are not in it: they are decoded each time, so that they can be named.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.picture_tables.cell_images import decoded_cell
from datamodules.picture_tables.found_table import Cells, TablePart
from datamodules.rows.images import BadImageError, check_not_constant, decode_image
from datamodules.rows.picture_index import index_folder, only_one
from datamodules.rows.provenance import content_hash
from datamodules.rows.read_ahead import in_threads
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.on_rank_zero import warn_on_rank_zero

_FORMAT = "synfer table index 1"
_FEWEST = 500
"""Rows of a file below which none is kept: they are decoded in a moment."""


@dataclass
class Inspection:
    """What is known of N pictures.

    Attributes:
        height: int32 (N,), in pixels; 0 = bad.
        width: int32 (N,).
        digest: uint64 (N,), content hashes.
        bad: row → why it cannot be used.
    """

    height: np.ndarray
    width: np.ndarray
    digest: np.ndarray
    bad: dict[int, BadImageError] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int) -> Inspection:
        """Returns one that knows nothing of so many rows."""
        return cls(np.zeros(rows, np.int32), np.zeros(rows, np.int32), np.zeros(rows, np.uint64))

    def hashes(self, rows: np.ndarray) -> np.ndarray:
        """Returns content hashes as 16 hex digits, str (n,), of some rows (n,)."""
        digits = self.digest[rows].astype(">u8").tobytes().hex().encode()
        return np.frombuffer(digits, dtype="S16").astype("U16")


def inspect_cells(cells: Cells, parts: Sequence[TablePart], path: str) -> Inspection:
    """Returns size and hash of every picture of a table, or why it is bad; decodes what no index knows.

    Ranks of one machine that ask at the same time decode once: the others wait and read what it found.

    Args:
        cells: the pictures.
        parts: the files that they lie in.
        path: of the set, for errors.
    """
    found = Inspection.empty(len(cells))
    for part in parts:
        file = _index_file(part) if part.state is not None and part.count >= _FEWEST else None
        if file is None:
            _decode(cells, np.arange(part.start, part.start + part.count), path, found)
        elif not _take(file, part, found):
            with only_one(file):
                if not _take(file, part, found):  # another rank may have been here
                    _decode(cells, np.arange(part.start, part.start + part.count), path, found)
                    _write(file, part, found)
                    continue
        if file is not None:
            rows = np.arange(part.start, part.start + part.count)
            _decode(cells, rows[found.height[rows] == 0], path, found)
    return found


def _decode(cells: Cells, rows: np.ndarray, path: str, found: Inspection) -> None:
    if not len(rows):
        return
    outcomes = in_threads(lambda place: _inspected(cells, int(rows[place]), path), range(len(rows)))
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, BadImageError):
            found.bad[int(row)] = outcome
        else:
            found.height[row], found.width[row], found.digest[row] = outcome


def _inspected(cells: Cells, row: int, path: str) -> tuple[int, int, int] | BadImageError:
    try:
        image = decoded_cell(cells, row, path)
        check_not_constant(image, f"{path}: {cells.place(row)}")
    except BadImageError as error:
        return error
    return image.shape[0], image.shape[1], int(content_hash(image), 16)


def _index_file(part: TablePart) -> Path | None:
    folder = index_folder()
    name = hashlib.sha256(part.identity.encode()).hexdigest()[:16]
    return None if folder is None else folder / f"{name}.table.parquet"


def _take(file: Path, part: TablePart, found: Inspection) -> bool:
    """Takes what an index knows of a part; False where there is none, or none that can be believed."""
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        told = table.schema.metadata or {}
        if told.get(b"format") != _FORMAT.encode() or told.get(b"state") != _state(part) or len(table) != part.count:
            return False
        height, width, digest = (table[name].to_numpy() for name in ("height", "width", "digest"))
    except (OSError, KeyError, pa.ArrowException):
        return False
    for row, content in part.again(np.random.default_rng(time.time_ns())):  # others at each start
        if height[row] and _differs(content, height[row], width[row], digest[row]):
            warn_on_rank_zero(
                f"index of '{part.identity.split(chr(0))[0]}': found another picture in row {row} than it says, in a "
                "file of the same length and time of change, expected none: all of its pictures are decoded again"
            )
            return False
    rows = slice(part.start, part.start + part.count)
    found.height[rows], found.width[rows], found.digest[rows] = height, width, digest
    return True


def _differs(content: bytes | None, height: int, width: int, digest: int) -> bool:
    try:
        image = decode_image(content, "")
    except BadImageError:
        return True
    return image.shape[:2] != (height, width) or int(content_hash(image), 16) != digest


def _write(file: Path, part: TablePart, found: Inspection) -> None:
    rows = slice(part.start, part.start + part.count)
    columns = {"height": found.height[rows], "width": found.width[rows], "digest": found.digest[rows]}
    table = pa.table(columns).replace_schema_metadata({"format": _FORMAT, "state": _state(part)})
    with contextlib.suppress(OSError), atomic_write(file) as place:  # a full disk costs time, not the run
        pq.write_table(table, place, compression="zstd", write_page_checksum=True)


def _state(part: TablePart) -> bytes:
    return str(part.state).encode()
