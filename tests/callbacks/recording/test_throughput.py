"""Speed, shares and gradients as they are logged."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from callbacks.recording.metrics_csv import MetricsCsv
from callbacks.recording.throughput import Throughput
from callbacks.synthesis.online_synthesis import OnlineSynthesis


class Line(LightningModule):
    """y = w · x with a gradient of 3 and 4: norm 5, clipped to 1 before the step."""

    def __init__(self, validation_s: float) -> None:
        super().__init__()
        self.validation_s = validation_s
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return (self.weight * torch.tensor([3.0, 4.0])).sum()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        time.sleep(self.validation_s / 2)  # of two batches; not the training's time

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Counted(LightningDataModule):
    """Four batches of three real and one synthetic sample, counted as ExpressionDataModule does."""

    synthetic_ratio = 0.25

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"real": 0, "synthetic": 0}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(16, 1)), batch_size=4)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(2, 1)))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:  # type: ignore[union-attr]
            self.counts["real"] += 3
            self.counts["synthetic"] += 1
        return batch


class Working(OnlineSynthesis):
    """Makes no face, and takes half of each step for it."""

    def setup(self, *args: Any, **kwargs: Any) -> None: ...

    def on_train_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        started = time.monotonic()
        time.sleep(0.03)
        self.seconds += time.monotonic() - started


class Slow(Callback):
    """The other half of each step."""

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.03)


def rows_of(
    folder: Path, every: int, *callbacks: Callback, val_every: int = 4, validation_s: float = 0.2
) -> list[dict[str, str]]:
    Trainer(
        accelerator="cpu",
        max_epochs=2,
        gradient_clip_val=1.0,
        log_every_n_steps=every,
        num_sanity_val_steps=0,
        val_check_interval=val_every,
        logger=MetricsCsv(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, Throughput()],
    ).fit(Line(validation_s), datamodule=Counted())
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [row for row in rows if row.get("throughput/steps_per_s")]


def test_values(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 2, Slow(), Working())
    assert [row["step"] for row in rows] == ["1", "3", "5", "7"]
    for row in rows:
        value = {name: float(text) for name, text in row.items() if text}
        assert value["data/nominal_ratio"] == value["data/effective_ratio"] == 0.25
        assert value["throughput/steps_per_s"] < 1 / 0.06
        assert math.isclose(value["throughput/real_images_per_s"], 3 * value["throughput/steps_per_s"], rel_tol=1e-4)
        assert math.isclose(value["throughput/synthetic_images_per_s"], value["throughput/steps_per_s"], rel_tol=1e-4)
        assert 0.1 < value["throughput/generation_share"] < 0.6
        assert 0 < value["throughput/generation_share_total"] <= value["throughput/generation_share"] + 0.2
        assert value["throughput/rank_imbalance"] == pytest.approx(0, abs=1e-6)
        assert value["train/gradient_norm"] == pytest.approx(5)  # before clipping


def test_validation_is_not_training_time(tmp_path: Path) -> None:
    # 1 s of validation after every second step; a step takes far less, however busy the machine.
    rows = rows_of(tmp_path, 1, val_every=2, validation_s=1.0)
    slowest = min(float(row["throughput/steps_per_s"]) for row in rows)
    assert slowest > 1


def test_epoch_shorter_than_the_logging_interval(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 50)
    assert [row["epoch"] for row in rows] == ["0.0", "1.0"]
    assert all(float(row["throughput/steps_per_s"]) > 0 for row in rows)
    assert all(float(row["data/effective_ratio"]) == 0.25 for row in rows)
