"""last.ckpt is the state at the end of training, wherever training ends."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from callbacks.run_checkpoint import RunCheckpoint


def _fit(folder: Path, **trainer: object) -> int:
    checkpoint = RunCheckpoint(folder, save_last=True, save_top_k=1)
    run = L.Trainer(
        default_root_dir=folder, callbacks=[checkpoint], logger=False, accelerator="cpu", limit_val_batches=1,
        enable_progress_bar=False, enable_model_summary=False, **trainer,
    )  # fmt: skip
    run.fit(BoringModel(), BoringDataModule())
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


def test_last_checkpoint_is_the_last_step_of_a_run_that_ends_between_two_validations(tmp_path: Path) -> None:
    assert _fit(tmp_path, max_steps=13, limit_train_batches=5, check_val_every_n_epoch=2) == 13


def test_last_checkpoint_is_the_last_step_of_a_run_that_ends_with_a_validation(tmp_path: Path) -> None:
    assert _fit(tmp_path, max_epochs=2, limit_train_batches=5) == 10
