"""One process per run folder, whoever started it."""

from __future__ import annotations

from pathlib import Path

from experiments.sweep.sweep_error import SweepError
from synfer.foundation.folder_lock import FolderLock, NoLocksError


class RunLock(FolderLock):
    """Exclusive lock of a sweep's run folder (``sweep.lock``).

    A training inherits the open file (``pass_fds=(lock.fd,)``): the lock outlives a runner that was killed as long as
    its training is alive, and is gone once both are dead.

    Args:
        folder: the run folder; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "sweep.lock")

    def _flock(self, descriptor: int, mode: int) -> bool:
        try:
            return super()._flock(descriptor, mode)
        except NoLocksError as error:  # two runners of one sweep would double its runs
            raise SweepError(str(error)) from error
