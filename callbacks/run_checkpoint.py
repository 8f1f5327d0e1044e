"""The checkpoints of a run: the newest state is always on disk."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """``ModelCheckpoint`` whose ``last.ckpt`` is the state at the end of training.

    Lightning saves after validations; a run that ends between two of them (``max_steps``, ``max_time``) would lose
    what it learned since. Arguments are those of ``ModelCheckpoint``.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes last.ckpt where it is older than the last step."""
        is_trial = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if self.save_last and not is_trial and self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
