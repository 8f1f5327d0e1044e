"""A folder for the file of a synthetic pool that nothing leaves behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path


class PoolFolder:
    """A new folder, removed with this object or with the process at the latest.

    Args:
        parent: folder to make it in, made where it is missing; None = the system's temporary folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: str | None) -> None:
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        self.path = tempfile.mkdtemp(prefix="synfer-pool-", dir=parent)
        self._remove = weakref.finalize(self, _remove_folder, self.path, os.getpid())

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        self._remove()


def _remove_folder(folder: str, owner: int) -> None:
    """Removes the folder, unless a forked worker runs this at its own end."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
