"""A callback for tests: something ends a fit after a step, as it might happen outside."""

from __future__ import annotations

import os
import signal
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer


class StopAt(Callback):
    """Ends the fit after so many steps.

    Args:
        step: after which optimiser step.
        how: name of a signal that this process gets, "time" (``max_time`` is over) or "request" (of a callback).
        rank: rank that it happens to.
    """

    def __init__(self, step: int, how: str, rank: int = 0) -> None:
        self.step, self.how, self.rank = step, how, rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Is early in the step, so that everything else comes after it."""
        if trainer.global_step != self.step - 1 or (trainer.global_rank != self.rank and self.how != "request"):
            return
        if self.how == "request":
            trainer.should_stop = True
        elif self.how == "time":
            for callback in trainer.callbacks:
                if isinstance(callback, Timer):
                    callback._offset = 1e9
        else:
            os.kill(os.getpid(), getattr(signal, self.how))
