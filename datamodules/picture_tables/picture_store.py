"""The encoded pictures of a Parquet file one after the other in a file of their own, so that any of them can be read.

Parquet packs a column in pages of many rows: one picture in the middle costs its whole row group, and a set that is
held in memory costs as much memory as it has pictures, on every rank. The copy holds the same bytes and where each
picture begins; a row is one read of its stretch, and the pages belong to the system's cache and not to the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from synfer.foundation.atomic_file import atomic_write

_FORMAT = "synfer picture store 1"
_END = 8  # bytes: length of the record at the end
_NOTHING = np.uint64(1) << np.uint64(63)
"""Mark, in the number of its end, of a row without a picture."""


class PictureStore:
    """Reads pictures of a store; each process opens the file for itself, so that loaders may be forked or spawned.

    Args:
        path: the store.
        ends: uint64 (N,), where each picture ends, with a mark where there is none.
        sums: uint32 (N,), CRC-32 of each.
    """

    def __init__(self, path: Path, ends: np.ndarray, sums: np.ndarray) -> None:
        self._path, self._ends, self._sums = path, ends, sums
        self._opened: tuple[int, int] | None = None  # process, descriptor

    def __len__(self) -> int:
        return len(self._ends)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __del__(self) -> None:
        if getattr(self, "_opened", None) is not None and self._opened[0] == os.getpid():  # type: ignore[index]
            os.close(self._opened[1])  # type: ignore[index]

    def read(self, row: int) -> bytes | None:
        """Returns the bytes of a picture; None where there is none.

        Raises:
            OSError: the store cannot be read, or has been damaged since it was written.
        """
        end = self._ends[row]
        if end & _NOTHING:
            return None
        start = int(self._ends[row - 1] & ~_NOTHING) if row else 0
        content = os.pread(self._descriptor(), int(end) - start, start)
        if zlib.crc32(content) != self._sums[row]:
            raise OSError(f"the copy '{self._path}' is damaged: once deleted it is made again")
        return content

    def _descriptor(self) -> int:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), os.open(self._path, os.O_RDONLY))
        return self._opened[1]


def open_store(path: Path, state: str, rows: int) -> PictureStore | None:
    """Returns a store; None where there is none of this state and number of rows, or a damaged one.

    Args:
        path: the store.
        state: of the file that it copies.
        rows: how many that file has.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(-_END, os.SEEK_END)
            length = int.from_bytes(file.read(_END), "little")
            if length > size:
                return None
            file.seek(size - length)
            record = json.loads(file.read(length))
            if record != {**record, "format": _FORMAT, "state": state, "rows": rows}:
                return None
            content = size - length - (8 + 4) * rows
            file.seek(content)
            raw = file.read((8 + 4) * rows)
    except (OSError, ValueError):
        return None
    if hashlib.sha256(raw).hexdigest() != record.get("table"):
        return None
    ends, sums = np.frombuffer(raw, dtype=np.uint64, count=rows), np.frombuffer(raw, dtype=np.uint32, offset=8 * rows)
    return PictureStore(path, ends, sums) if not rows or int(ends[-1] & ~_NOTHING) == content else None


def write_store(path: Path, state: str, pictures: Iterable[bytes | None]) -> None:
    """Writes a store, whole or not at all.

    Args:
        path: the store.
        state: of the file that it copies.
        pictures: in the order of its rows.

    Raises:
        OSError: no space.
    """
    ends, sums = array("Q"), array("I")
    place = 0
    with atomic_write(path) as partial, partial.open("wb") as file:
        for picture in pictures:
            if picture:
                file.write(picture)
                place += len(picture)
            ends.append(place if picture else place | int(_NOTHING))
            sums.append(zlib.crc32(picture or b""))
        raw = ends.tobytes() + sums.tobytes()
        file.write(raw)
        record = {"format": _FORMAT, "state": state, "rows": len(ends), "table": hashlib.sha256(raw).hexdigest()}
        words = json.dumps(record).encode()
        file.write(words + len(words).to_bytes(_END, "little"))
