"""The checkpoints of a run: the newest state is always on disk, and a run goes on from it as if never stopped."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.agreed_stop import AgreedStop
from callbacks.planned_validation import validated_epoch, validates_now
from callbacks.recording.loop_state import set_loops, stored_place
from lightning_modules.averaged_module import AveragedModule
from lightning_modules.trainer_access import data_of


class RunCheckpoint(ModelCheckpoint):
    """``ModelCheckpoint`` whose ``last.ckpt`` is the state after the last step, wherever training ends.

    Lightning saves after validations; a run that ends between two of them (``max_steps``, ``max_time``, early stopping,
    SIGTERM from a scheduler whose time is up) would lose what it learned since. Arguments are those of
    ``ModelCheckpoint``.

    Every checkpoint is of a place between two steps, with all that belongs to the steps before it done. What falls due
    at the last batch of an epoch, or before a validation, is therefore written after them. On loading, the loops are
    put where the data module says that the run stands (``ExpressionDataModule.position``).
    """

    _is_due = False

    # ------------------------------------------------------------------ saving

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where that is due now, or where the training ends in the middle of an epoch."""
        if _is_last_batch(trainer) or validates_now(trainer):
            every = self._every_n_train_steps
            self._is_due |= every > 0 and trainer.global_step % every == 0
            return
        # Lightning asks the module for nothing else, and with manual optimisation it would pass over
        # train_time_interval and warn of a state that no module of ours is meant to keep.
        module = _OneStepPerBatch() if _takes_one_step_per_batch(pl_module) else pl_module
        super().on_train_batch_end(trainer, cast("LightningModule", module), outputs, batch, batch_idx)
        if _ends_now(trainer):
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after a validation in the middle of an epoch; at its end the epoch's own work comes first."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and _is_last_batch(trainer):
            return
        super().on_validation_end(trainer, pl_module)
        self._save_due(trainer)
        if trainer.state.fn == "fit" and not trainer.sanity_checking and _ends_now(trainer):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what fell due at the end of the epoch; an epoch that was broken off has been saved already."""
        if not _is_last_batch(trainer):
            return
        if not self._should_save_on_train_epoch_end(trainer) and validated_epoch(trainer):
            super().on_validation_end(trainer, pl_module)
        super().on_train_epoch_end(trainer, pl_module)
        self._save_due(trainer)
        if _ends_now(trainer):
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes last.ckpt where it is older than the last step."""
        self._save_last(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes last.ckpt where all ranks stop for a signal."""
        self.save_where_stopped(trainer, exception)
        super().on_exception(trainer, pl_module, exception)

    def save_where_stopped(self, trainer: Trainer, exception: BaseException) -> None:
        """Writes last.ckpt where all ranks stop for a signal, which happens between two steps; once, by all ranks."""
        if isinstance(exception, SIGTERMException) and not trainer.sanity_checking:
            self._save_last(trainer)

    def _save_due(self, trainer: Trainer) -> None:
        if self._is_due and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)
        self._is_due = False

    def _save_last(self, trainer: Trainer) -> None:
        is_trial = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if self.save_last and not is_trial and self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if self._last_global_step_saved != trainer.global_step:  # else looked at for the file before
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, AgreedStop):
                    callback.agree(trainer)
            _check_finite(trainer)
        super()._save_checkpoint(trainer, filepath)

    # ------------------------------------------------------------------ loading

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts Lightning's loops where the data module stands; ``max_time`` counts from here."""
        if trainer.state.fn != "fit":
            return
        states = checkpoint.get("callbacks", {})
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer):
                # It would go on from what the attempts before have taken, and end the next one at once.
                states.pop(callback.state_key, None)
            elif isinstance(callback, EarlyStopping) and callback.state_key in states:
                # The patience of the command line, not of the checkpoint; and it is not what ends this attempt.
                states[callback.state_key] |= {
                    "patience": callback.patience,
                    "stopped_epoch": 0,
                    "stopping_reason": EarlyStoppingReason.NOT_STOPPED.value,
                    "stopping_reason_message": None,
                }
        data: Any = data_of(trainer)
        if not hasattr(data, "resume_at"):
            return
        fit_loop = checkpoint["loops"]["fit_loop"]
        stored = checkpoint.get(type(data).__qualname__, {})
        if "position" in stored:
            here = data.resume_at(data.resumed_at)
        else:
            here = data.resume_at(data.position_of(*stored_place(fit_loop)))
        set_loops(fit_loop, here.epoch, here.batches, int(checkpoint["global_step"]))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keeps the step that loggers are told in line; Lightning counts one too many after some restarts."""
        if _takes_one_step_per_batch(pl_module):
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


class _OneStepPerBatch:
    """What Lightning's checkpoints ask of a module: whether each batch is one step of ``trainer.global_step``."""

    automatic_optimization = True


def _takes_one_step_per_batch(module: LightningModule) -> bool:
    """Whether ``trainer.global_step`` counts batches: with one optimiser, and in all modules of this project."""
    return module.automatic_optimization or isinstance(module, AveragedModule)


def _is_last_batch(trainer: Trainer) -> bool:
    loop = trainer.fit_loop.epoch_loop
    return loop._num_ready_batches_reached()


def _ends_now(trainer: Trainer) -> bool:
    """Whether the fit ends after this step, in the middle of an epoch or at its end."""
    loop = trainer.fit_loop
    steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return steps or (trainer.should_stop and loop._can_stop_early)


def _check_finite(trainer: Trainer) -> None:
    """Refuses to write weights that are no numbers.

    Raises:
        ValueError: a trained parameter holds NaN or infinity.
    """
    for name, parameter in trainer.lightning_module.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise ValueError(
                f"checkpoint of step {trainer.global_step}: found NaN or infinity in {name}, expected numbers; "
                "checkpoints of earlier steps are kept"
            )
