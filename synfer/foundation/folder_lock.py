"""One at work in a folder at a time, whoever started it and however it ended."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from types import TracebackType

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class NoLocksError(OSError):
    """The file system of the folder has no locks: one line that says so."""


class FolderLock:
    """Exclusive lock of a folder (flock on one file in it).

    The kernel holds the lock as long as any process has the file open that took it, and gives it back however that
    process ended: there is nothing stale to clean up. A program started with ``pass_fds=(lock.fd,)`` holds it too.

    Args:
        path: the lock file; its folder is made where it is missing.
        by_workers: whether processes forked from ours (data workers) hold it too, and so may outlive us in our place.
    """

    def __init__(self, path: Path, by_workers: bool = True) -> None:
        self.path = path
        self.fd = -1
        self._by_workers = by_workers

    def take(self, patience_s: float = 0.0) -> bool:
        """Returns whether the lock is ours now.

        Args:
            patience_s: how long to try; somebody who only looks (``is_held``) has it for a moment.

        Raises:
            NoLocksError: the file system has no locks.
        """
        if not self._hold(fcntl.LOCK_EX, patience_s):
            return False
        self.note(os.getpid())
        return True

    def share(self, patience_s: float = 0.0) -> bool:
        """Returns whether the lock is ours together with others who share it.

        Raises:
            NoLocksError: the file system has no locks.
        """
        return self._hold(fcntl.LOCK_SH, patience_s)

    def note(self, process: int) -> None:
        """Writes who is at work, for people to read."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"process {process} on {socket.gethostname()}\n".encode(), 0)

    def holder(self) -> str:
        """Returns who took the lock last."""
        try:
            return self.path.read_text().strip() or "another process"
        except OSError:
            return "another process"

    def is_held(self) -> bool:
        """Returns whether some process is at work in the folder."""
        if not self.path.exists():
            return False
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except OSError:
            return True
        try:
            return not self._flock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Closes our copy; the lock is free once everybody has who shares or inherited it."""
        if self.fd >= 0:
            _NOT_BY_WORKERS.discard(self.fd)
            os.close(self.fd)
            self.fd = -1

    def _hold(self, mode: int, patience_s: float) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + patience_s
        try:
            while not self._flock(descriptor, mode):
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.05)
        except Exception:
            os.close(descriptor)
            raise
        self.fd = descriptor
        if not self._by_workers:
            _NOT_BY_WORKERS.add(descriptor)
        return True

    def _flock(self, descriptor: int, mode: int) -> bool:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise NoLocksError(
                f"{self.path}: found a file system without locks ({error.strerror}), expected one that has them "
                "(choose a folder on another, or have it mounted with flock)"
            ) from error
        return True

    def __enter__(self) -> FolderLock:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the lock."""
        self.release()


class RanksLock:
    """Lock of a folder that the ranks of one run hold together.

    Rank 0 takes the first file alone, and each other rank shares a second one. A newcomer must have had both alone:
    a rank that outlived its rank 0 keeps it out. Data workers do not hold it.

    Args:
        path: the first file; the second has ``.ranks`` appended.
    """

    def __init__(self, path: Path) -> None:
        self._first = FolderLock(path, by_workers=False)
        self._others = FolderLock(path.with_name(f"{path.name}.ranks"), by_workers=False)

    def take(self, patience_s: float = 5.0) -> str:
        """Takes the lock for a new run; for rank 0, before the other ranks ``join``.

        Args:
            patience_s: how long to wait for ranks of a run that has just ended.

        Returns:
            Who holds it; "" = it is ours now.

        Raises:
            NoLocksError: the file system has no locks.
        """
        if not self._first.take(patience_s):
            return self._first.holder()
        if not self._others.take(patience_s):
            self._first.release()
            return f"a rank that outlived its run: {self._others.holder()}"
        self._others.release()
        return ""

    def join(self) -> None:
        """Holds the lock beside rank 0's; for every other rank.

        Raises:
            NoLocksError: the file system has no locks.
        """
        if self._others.share(patience_s=5.0):
            self._others.note(os.getpid())

    def is_held(self) -> bool:
        """Returns whether some process is at work in the folder."""
        return self._first.is_held() or self._others.is_held()

    def release(self) -> None:
        """Gives our part of it back."""
        self._first.release()
        self._others.release()


_NOT_BY_WORKERS: set[int] = set()


def _close_in_worker() -> None:
    for descriptor in _NOT_BY_WORKERS:
        os.close(descriptor)
    _NOT_BY_WORKERS.clear()


os.register_at_fork(after_in_child=_close_in_worker)
