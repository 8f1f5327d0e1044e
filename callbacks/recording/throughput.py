"""How fast a run trains, how much of its time goes into making faces, and how large its gradients are."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from callbacks.synthesis.online_synthesis import OnlineSynthesis
from lightning_modules.trainer_access import data_of


class Throughput(Callback):
    """Logs speed and gradients for every logger, at each logging step and at the end of each epoch.

    - ``throughput/steps_per_s``, ``throughput/real_images_per_s``, ``throughput/synthetic_images_per_s``: since the
      last time, images of all ranks; waiting for data and making faces count, validation does not;
    - ``throughput/generation_share``: share of that time spent making faces, mean over ranks, in [0, 1];
    - ``throughput/generation_share_total``: the same since the fit started, filling the pool and validation included;
    - ``throughput/rank_imbalance``: seconds of generation so far, those of the slowest rank ÷ the mean − 1 (0 = even);
    - ``data/nominal_ratio``, ``data/effective_ratio``: share of synthetic samples as asked for, and as counted from all
      batches of all ranks so far;
    - ``train/gradient_norm``: L2 norm over all gradients before clipping, at the logging step.

    Ratio and images need a data module that counts (``ExpressionDataModule``). Every rank takes part in one small
    all-gather per logging step. Comes after the callbacks whose time it measures.
    """

    def __init__(self) -> None:
        self._started = self._mark = self._elapsed = 0.0
        self._steps = 0
        self._last = (0, 0, 0.0)
        self._norm: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the whole fit, before the pool is filled."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of an epoch."""
        self._mark = time.monotonic()
        self._elapsed, self._steps, self._last = 0.0, 0, self._counted(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out the time of the validation."""
        self._mark = time.monotonic()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Takes the norm of the gradients before they are clipped, where it will be logged."""
        if trainer._logger_connector.should_update_logs:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if gradients:
                self._norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs at the logging steps."""
        now = time.monotonic()
        self._elapsed += now - self._mark
        self._mark = now
        self._steps += 1
        if trainer._logger_connector.should_update_logs:
            values = self._measure(trainer, pl_module)
            if self._norm is not None:
                values["train/gradient_norm"] = float(self._norm)
            pl_module.log_dict(values, on_step=True, on_epoch=False)
            self._norm = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what has not been logged, at least once per epoch."""
        if self._steps:
            pl_module.log_dict(self._measure(trainer, pl_module))

    def _counted(self, trainer: Trainer) -> tuple[int, int, float]:
        """Returns this rank's real samples, synthetic samples and seconds of generation so far."""
        counts = getattr(data_of(trainer), "counts", None) or {}
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        seconds = sum(c.seconds for c in callbacks if isinstance(c, OnlineSynthesis))
        return counts.get("real", 0), counts.get("synthetic", 0), seconds

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Returns the values since the last time (a collective) and starts anew."""
        now, last = self._counted(trainer), self._last
        own = torch.tensor([*now, *(a - b for a, b in zip(now, last, strict=True))], device=pl_module.device)
        ranks = trainer.strategy.all_gather(own.float()).reshape(-1, len(own)).double()
        real, synthetic, seconds, new_real, new_synthetic, new_seconds = ranks.sum(0).tolist()
        world, elapsed = len(ranks), max(self._elapsed, 1e-9)
        values = {
            "throughput/steps_per_s": self._steps / elapsed,
            "throughput/generation_share": new_seconds / world / elapsed,
            "throughput/generation_share_total": seconds / world / max(time.monotonic() - self._started, 1e-9),
        }
        if seconds:
            values["throughput/rank_imbalance"] = float(ranks[:, 2].max()) * world / seconds - 1
        if real + synthetic:
            values["throughput/real_images_per_s"] = new_real / elapsed
            values["throughput/synthetic_images_per_s"] = new_synthetic / elapsed
            values["data/nominal_ratio"] = float(getattr(trainer.datamodule, "synthetic_ratio", 0.0))  # type: ignore[attr-defined]
            values["data/effective_ratio"] = synthetic / (real + synthetic)
        self._elapsed, self._steps, self._last = 0.0, 0, now
        return values
