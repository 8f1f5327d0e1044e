"""A bound on the caches of a folder, which any number of processes may fill at the same time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synfer.foundation.folder_lock import FolderLock, NoLocksError

_LOCK, _USE = "caches.lock", "in_use.lock"
_PATIENCE_S = 60.0


class CacheRoom:
    """Says whether a cache may grow, and makes room where others lie unused.

    Each cache is a folder in ``root``. Whoever has one open shares a lock in it; a cache that nobody has open may be
    deleted, the one first whose last use is the longest ago. Locks go with their process, however it ends.

    Args:
        root: folder of the caches.
        most_bytes: bound on all of them together.
    """

    def __init__(self, root: str | os.PathLike[str], most_bytes: int) -> None:
        self.root, self.most_bytes = Path(root), most_bytes
        self._in_use: dict[Path, FolderLock] = {}

    def enter(self, folder: Path) -> None:
        """Keeps a cache from being deleted for as long as this process lives, or until :meth:`close`.

        Raises:
            OSError: it cannot be written to, or has no locks.
        """
        if folder in self._in_use:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with self._alone():  # nobody deletes it in between
            lock = FolderLock(folder / _USE, by_workers=False)
            if not lock.share():
                raise OSError(f"{folder}: found another process that clears it, expected one that is in use")
            os.utime(folder / _USE)
        self._in_use[folder] = lock

    @contextmanager
    def asked(self, folder: Path, needed: int) -> Iterator[bool]:
        """Yields whether a cache may take so many bytes more, and keeps the others from growing meanwhile.

        Args:
            folder: of the cache.
            needed: bytes that are to be written inside the context.

        Raises:
            OSError: the lock cannot be had.
        """
        with self._alone():
            others = [lock for lock in self.root.glob(f"*/{_USE}") if lock.parent != folder]
            for lock_file in sorted(others, key=lambda file: file.stat().st_mtime_ns):
                if self.used_bytes() + needed <= self.most_bytes:
                    break
                lock = FolderLock(lock_file, by_workers=False)
                if lock.take():
                    shutil.rmtree(lock_file.parent, ignore_errors=True)
                    lock.release()
            yield self.used_bytes() + needed <= self.most_bytes

    def used_bytes(self) -> int:
        """Returns what all caches take."""
        total = 0
        for file in self.root.glob("*/*/*"):
            try:
                total += file.stat().st_size
            except FileNotFoundError:  # renamed meanwhile
                continue
        return total

    def close(self) -> None:
        """Lets the caches that were entered be deleted."""
        for lock in self._in_use.values():
            lock.release()
        self._in_use = {}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = FolderLock(self.root / _LOCK, by_workers=False)
        if not lock.take(_PATIENCE_S):
            raise NoLocksError(f"{lock.path}: found it held by {lock.holder()}, expected it free in time")
        try:
            yield
        finally:
            lock.release()
