"""One process per run folder, whoever started it."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from types import TracebackType


class RunLock:
    """Exclusive lock of a run folder (flock on ``sweep.lock``).

    The kernel holds the lock as long as any process has the file open that took it. A training inherits the open file
    (``pass_fds=(lock.fd,)``): the lock outlives a runner that was killed as long as its training is alive, and is gone
    once both are dead. There is nothing stale to clean up.

    Args:
        folder: the run folder; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sweep.lock"
        self.fd = -1

    def take(self, patience_s: float = 0.0) -> bool:
        """Returns whether the lock is ours now.

        Args:
            patience_s: how long to try; somebody who only looks (``is_held``) has it for a moment.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.05)
            else:
                self.fd = descriptor
                self.note(os.getpid())
                return True

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
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def release(self) -> None:
        """Closes our copy; the lock is free once the training has ended too."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> RunLock:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the lock."""
        self.release()
