"""One run at a time in a run folder, by all its ranks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from synfer.foundation.folder_lock import NoLocksError, RanksLock

LOCK = "run.lock"


class RunFolderLock(Callback):
    """Keeps every other run out of the run folder, until the last rank of this one has ended.

    Rank 0 takes the lock before anything is written (``take``); the other ranks join it once they are started, so that
    one which outlives a killed rank 0 still keeps a restart out.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._lock = RanksLock(run_dir / LOCK)

    def take(self) -> None:
        """Takes the lock; for rank 0.

        Raises:
            ValueError: another run is at work in the folder.
        """
        try:
            holder = self._lock.take()
        except NoLocksError as error:
            rank_zero_warn(f"{error}; until then, see to it that no second run writes into '{self.run_dir}'")
            return
        if holder:
            raise ValueError(
                f"run_dir '{self.run_dir}': found another run at work in it ({holder}; lock "
                f"'{self.run_dir / LOCK}'), expected a folder of its own (or wait until that run has ended)"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Joins rank 0, which holds the lock by now."""
        if not trainer.is_global_zero:
            with suppress(NoLocksError):  # rank 0 has said so
                self._lock.join()

    def release(self) -> None:
        """Gives our part of the lock back."""
        self._lock.release()
