"""The checkpoints of a run: the newest state is always on disk."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class RunCheckpoint(ModelCheckpoint):
    """``ModelCheckpoint`` whose ``last.ckpt`` is the state at the end of training.

    Lightning saves after validations; a run that ends between two of them (``max_steps``, ``max_time``, SIGTERM from a
    scheduler whose time is up) would lose what it learned since. On several ranks SIGTERM saves nothing: it need not
    reach all of them at the same step, and saving waits for all. Arguments are those of ``ModelCheckpoint``.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes last.ckpt where it is older than the last step."""
        is_trial = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if self.save_last and not is_trial and self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes last.ckpt on SIGTERM too, which Lightning raises between two batches."""
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1 and not trainer.sanity_checking:
            self.on_train_end(trainer, pl_module)
        super().on_exception(trainer, pl_module, exception)
