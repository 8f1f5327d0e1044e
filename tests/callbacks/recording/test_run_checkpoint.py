"""last.ckpt is the state at the end of training, wherever training ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.recording.run_checkpoint import RunCheckpoint


def _fit(folder: Path, *callbacks: Callback, **trainer: object) -> int:
    checkpoint = RunCheckpoint(folder, save_last=True, save_top_k=1)
    run = Trainer(
        default_root_dir=folder,
        callbacks=[checkpoint, *callbacks],
        logger=False,
        accelerator="cpu",
        limit_val_batches=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    )
    run.fit(BoringModel(), BoringDataModule())
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


def test_last_checkpoint_is_the_last_step_of_a_run_that_ends_between_two_validations(tmp_path: Path) -> None:
    assert _fit(tmp_path, max_steps=13, limit_train_batches=5, check_val_every_n_epoch=2) == 13


def test_last_checkpoint_is_the_last_step_of_a_run_that_ends_with_a_validation(tmp_path: Path) -> None:
    assert _fit(tmp_path, max_epochs=2, limit_train_batches=5) == 10


class _Terminate(Callback):
    """A scheduler whose time is up after so many batches."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.after:
            os.kill(os.getpid(), signal.SIGTERM)


def test_last_checkpoint_is_the_last_step_of_a_run_that_is_terminated(tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        _fit(tmp_path, _Terminate(8), max_steps=50, limit_train_batches=5, check_val_every_n_epoch=1)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 8
    assert _fit(tmp_path / "on", max_steps=9, limit_train_batches=5) == 9  # the handler is gone again


def test_an_error_saves_nothing(tmp_path: Path) -> None:
    class Broken(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 8:
                raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        _fit(tmp_path, Broken(), max_steps=50, limit_train_batches=5, check_val_every_n_epoch=1)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
