"""One process per run folder, whoever started it."""

from __future__ import annotations

from pathlib import Path

from datamodules.folder_lock import FolderLock


class RunLock(FolderLock):
    """Exclusive lock of a sweep's run folder (``sweep.lock``).

    A training inherits the open file (``pass_fds=(lock.fd,)``): the lock outlives a runner that was killed as long as
    its training is alive, and is gone once both are dead.

    Args:
        folder: the run folder; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "sweep.lock")
