"""The random numbers of a training step depend on the step alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.run_seed import run_seed
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.random_streams import Stream


class StepSeed(Callback):
    """Seeds Python, numpy and torch before each training batch by (seed, rank, epoch, batch).

    Dropout and everything else that draws from the global generators then gets the same numbers in a run that was
    interrupted as in one that was not, whatever was drawn before: a validation, a pool that was filled anew.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds the step; each rank differently."""
        key = keyed_seed(run_seed(trainer), trainer.global_rank, trainer.current_epoch, batch_idx, Stream.STEP_SEED)
        random.seed(key)
        np.random.seed(key % 2**32)
        # Not torch.manual_seed: without a GPU it prepares each time for one that may come (90 µs).
        torch.default_generator.manual_seed(key)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(key)
        elif pl_module.device.type == "mps":
            torch.mps.manual_seed(key)
