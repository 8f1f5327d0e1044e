"""Rows of a synthetic set on their way into shards of bounded size."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from datamodules.synthetic.synthetic_shards import write_table

SHARD_FACES = 4096
"""Rows of a shard at most."""

SHARD_BYTES = 256 * 2**20
"""Bytes at which a shard is closed, whatever its rows: pictures of 512 pixels come to half a megabyte each."""


class ShardStream:
    """Collects rows and writes a shard as soon as it is full, or was begun long enough ago.

    So many files come of a million quick faces as of a million slow ones made in days: few. Each shard is whole before
    the next is begun; rows that wait are lost with the process, and then made again.

    Args:
        folder: of the set.
        faces: rows of a shard at most, ≥ 1.
        seconds: after so many since the last shard, or where there is none, what waits is written with the next rows;
            0 = with all rows; infinite = never for that reason.
        size: bytes at which a shard is closed; None = :data:`SHARD_BYTES`.

    Attributes:
        written: rows in shards.
        kept: those of them that were kept.
    """

    def __init__(
        self, folder: Path, faces: int = SHARD_FACES, seconds: float = float("inf"), size: int | None = None
    ) -> None:
        self.folder, self.faces, self.seconds, self.size = folder, faces, seconds, size or SHARD_BYTES
        self.written = self.kept = 0
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0
        # No clock that somebody may set. The first rows are written at once, so that every start gets somewhere.
        self._last = time.monotonic() if seconds == float("inf") else float("-inf")

    def add(self, table: pa.Table) -> None:
        """Takes rows of a set (``table_of``).

        Raises:
            OSError: a shard cannot be written.
        """
        while len(table):
            part = table.slice(0, self.faces - self._rows)
            table = table.slice(len(part))
            self._waiting.append(part)
            self._rows += len(part)
            self._bytes += part.nbytes
            if self._rows >= self.faces or self._bytes >= self.size:
                self.flush()
        if time.monotonic() - self._last >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Writes what waits.

        Raises:
            OSError: the shard cannot be written.
        """
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            write_table(self.folder, table)
            self.written += len(table)
            self.kept += pc.sum(table["kept"]).as_py() or 0
        self._waiting, self._rows, self._bytes = [], 0, 0
        self._last = time.monotonic()
