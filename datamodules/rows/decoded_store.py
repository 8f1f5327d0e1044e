"""Decoded pictures of one shape, kept on disk by what is on them, for all ranks, loader processes, runs and data sets.

A slot is a head (whose picture it is, and a checksum of the pixels) and the pixels. It is looked at before it is
believed: one that is empty, cut short, damaged or another's is written again by whoever has decoded the picture. So
there is nothing to keep in step: no slot is marked as full anywhere else, and a process that is killed leaves no lie.

Slots are read and written by position. What was read once comes from the system's page cache, one copy for all
processes, as a mapped file would; a mapped file that somebody cuts short, or a full disk, would kill the process.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from synfer.foundation.folder_lock import FolderLock, NoLocksError

KEY_BYTES = 32
"""Length of a key: hex digits, so that numpy compares them as they are."""

_HEAD = struct.Struct(f"<4sI{KEY_BYTES}s8x")  # magic, checksum, key: 48 bytes
_MAGIC = b"syn1"
_PATIENCE_S = 60.0
_PIXELS, _KEYS, _LOCK, _USE = "pixels.bin", "keys.bin", "store.lock", "in_use.lock"


class DecodedStore:
    """Slots of one folder.

    Args:
        folder: of this shape of pictures alone.
        shape: of one picture, (C, H, W).
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self._folder, self.shape = folder, shape
        self._pixel_bytes = int(np.prod(shape))
        self._slot_bytes = _HEAD.size + self._pixel_bytes
        self._file = -1
        self._in_use: FolderLock | None = None

    def assign(self, keys: np.ndarray, most_bytes: int) -> np.ndarray:
        """Returns the slot of each picture, int64 (N,); −1 = there is no room for it.

        Slots that nobody uses any more are given up where room is needed: all of another shape first, the one that has
        waited longest, and then those of this shape, unless another process is reading them.

        Args:
            keys: what is on each picture, S32 (N,); equal ones share a slot.
            most_bytes: bound on all stores beside this one and on it, together.

        Raises:
            OSError: the folder cannot be written to, or has no locks.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder.parent / _LOCK):
            if self._in_use is None and most_bytes < self._bytes_needed(keys):
                self._make_room(keys, most_bytes)
            if self._in_use is None:
                lock = FolderLock(self._folder / _USE, by_workers=False)
                if not lock.share():
                    raise OSError(f"{self._folder}: found another process that clears it, expected one that is in use")
                self._in_use = lock
            slots = self._append(keys, most_bytes)
            os.utime(self._folder / _KEYS)
            self._open()
        return slots

    def read(self, slot: int, key: bytes, pixels: np.ndarray, check: bool = True) -> bool:
        """Fills ``pixels``, uint8 (C, H, W) and contiguous; returns whether the slot holds this picture.

        Args:
            slot: of the picture.
            key: of the picture.
            pixels: is filled; of no use where False is returned.
            check: whether the checksum is looked at too.
        """
        head = bytearray(_HEAD.size)
        try:
            found = os.preadv(self._descriptor(), [head, pixels.reshape(-1)], slot * self._slot_bytes)  # type: ignore[list-item]
        except OSError:
            return False
        if found != self._slot_bytes:
            return False
        magic, checksum, owner = _HEAD.unpack(head)
        return magic == _MAGIC and owner == key and (not check or zlib.crc32(pixels.data) == checksum)

    def write(self, slot: int, key: bytes, pixels: np.ndarray) -> None:
        """Fills a slot, whoever else may be writing the same.

        Raises:
            OSError: the disk is full, for example.
        """
        head = _HEAD.pack(_MAGIC, zlib.crc32(pixels.data), key)
        wrote = os.pwritev(self._descriptor(), [head, pixels.reshape(-1)], slot * self._slot_bytes)  # type: ignore[list-item]
        if wrote != self._slot_bytes:
            raise OSError(f"{self._folder}: found room for {wrote} of {self._slot_bytes} bytes")

    def _bytes_needed(self, keys: np.ndarray) -> int:
        new = np.setdiff1d(keys, self._stored_keys())
        return bytes_of_stores(self._folder.parent) + len(new) * self._slot_bytes

    def _make_room(self, keys: np.ndarray, most_bytes: int) -> None:
        """Deletes stores that nobody uses, the longest unused first, this one last, until there is room."""
        others = [folder for folder in self._folder.parent.iterdir() if (folder / _KEYS).is_file()]
        others = sorted(others, key=lambda folder: (folder == self._folder, (folder / _KEYS).stat().st_mtime_ns))
        for folder in others:
            if self._bytes_needed(keys) <= most_bytes:
                return
            lock = FolderLock(folder / _USE, by_workers=False)
            if lock.take():
                for name in (_KEYS, _PIXELS):  # keys first: pixels without keys are nothing
                    (folder / name).unlink(missing_ok=True)
                lock.release()

    def _append(self, keys: np.ndarray, most_bytes: int) -> np.ndarray:
        """Returns slots, and gives new ones to pictures that have none, as far as there is room."""
        stored = self._stored_keys()
        room = max(0, most_bytes - bytes_of_stores(self._folder.parent)) // self._slot_bytes
        new = np.setdiff1d(keys, stored)[:room]
        path = self._folder / _KEYS
        if len(new) or not path.is_file():
            with path.open("ab") as file:
                file.truncate(len(stored) * KEY_BYTES)  # half a key of a process that was killed
                file.write(new.tobytes())
        stored = np.concatenate([stored, new])
        with (self._folder / _PIXELS).open("ab") as file:  # holes: the disk is used as pictures come
            file.truncate(max(file.tell(), len(stored) * self._slot_bytes))
        order = np.argsort(stored)
        place = np.searchsorted(stored, keys, sorter=order)
        found = order[np.minimum(place, len(stored) - 1)] if len(stored) else np.zeros(len(keys), dtype=np.int64)
        there = stored[found] == keys if len(stored) else np.zeros(len(keys), dtype=bool)
        return np.where(there, found, -1).astype(np.int64)

    def _stored_keys(self) -> np.ndarray:
        try:
            content = (self._folder / _KEYS).read_bytes()
        except FileNotFoundError:
            content = b""
        return np.frombuffer(content[: len(content) - len(content) % KEY_BYTES], dtype=f"S{KEY_BYTES}")

    def _descriptor(self) -> int:
        if self._file < 0:
            self._open()
        return self._file

    def _open(self) -> None:
        if self._file < 0:
            self._file = os.open(self._folder / _PIXELS, os.O_RDWR)

    def __getstate__(self) -> dict[str, object]:
        """A process that is started anew opens the file for itself; whoever started it keeps the store in use."""
        return {**self.__dict__, "_file": -1, "_in_use": None}

    def close(self) -> None:
        """Gives the file and the store back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._in_use is not None:
            self._in_use.release()
            self._in_use = None


def bytes_of_stores(parent: Path) -> int:
    """Returns what all stores in a folder will take once every slot is full."""
    sizes = 0
    for file in parent.glob(f"*/{_PIXELS}"):
        with contextlib.suppress(FileNotFoundError):
            sizes += file.stat().st_size
    return sizes


class _locked:
    """Holds the lock of all stores of a folder."""

    def __init__(self, path: Path) -> None:
        self._lock = FolderLock(path, by_workers=False)

    def __enter__(self) -> None:
        if not self._lock.take(_PATIENCE_S):
            raise NoLocksError(f"{self._lock.path}: found it held by {self._lock.holder()}, expected it free in time")

    def __exit__(self, *_: object) -> None:
        self._lock.release()
