"""Options of the trainer that touch loaders and samplers: ratio, counts and rows stay what was asked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.rows.sample_table import SampleTable
from lightning_modules.classifier import ExpressionClassifier
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table

TINY: dict[str, Any] = {
    "label_space": list(BASIC7),
    "backbone": "resnet10t",
    "backbone_kwargs": {"channels": [4, 4, 8, 8], "stem_width": 4},
    "stem": "native",
    "image_size": 8,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leaves out Lightning's advice on workers and on logging."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


class _Seen(Callback):
    """Keeps the ids of every training batch and the labels of validation."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.shares: list[float] = []
        self.validated: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch["sample_id"])
        self.shares.append(float(batch["is_synthetic"].float().mean()))

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        self.validated += batch["label"].tolist()


class _FillPool(Callback):
    """Stands in for online synthesis, which takes a generator: sixteen samples when training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        label = torch.arange(16) % 7
        images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
        pool = trainer.datamodule.pool  # type: ignore[attr-defined]
        pool.append(images, label, torch.eye(7)[label], torch.zeros(16, 41), label, [""] * 16)


def _sorted(table: SampleTable) -> SampleTable:
    return table.select(np.argsort(table.label, kind="stable"))


def _fit(
    folder: Path, ratio: float = 0.5, has_pool: bool = False, **options: Any
) -> tuple[_Seen, ExpressionDataModule, Trainer]:
    """Trains two epochs of seven steps on sets that are sorted by class."""
    seen = _Seen()
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = Trainer(
        default_root_dir=folder,
        callbacks=[seen, *([_FillPool()] if has_pool else [])],
        **{**settings, **quiet, **options},
    )
    data = ExpressionDataModule(
        TinyReader(train=_sorted(tiny_table(56)), val=_sorted(tiny_table(56, "val"))),
        batch_size=16 if ratio == 0.5 else 8,
        eval_batch_size=7,
        synthetic_ratio=ratio,
        synthetic_reader=None if has_pool else TinyReader(train=_sorted(tiny_table(112, "synthetic"))),
        pool_size=16,
        augmentation=Augmentation(enabled=False),
        seed=1,
    )
    trainer.fit(ExpressionClassifier(**TINY), datamodule=data)
    return seen, data, trainer


@pytest.mark.parametrize(
    ("options", "batches", "steps"),
    [
        ({}, 14, 14),
        ({"limit_train_batches": 3}, 6, 6),
        ({"limit_train_batches": 0.5}, 6, 6),
        ({"use_distributed_sampler": False}, 14, 14),
        ({"reload_dataloaders_every_n_epochs": 1}, 14, 14),
        ({"accumulate_grad_batches": 3}, 14, 6),
        ({"gradient_clip_val": 0.1}, 14, 14),
        ({"val_check_interval": 2}, 14, 14),
        ({"fast_dev_run": 2}, 2, 2),
        ({"overfit_batches": 3}, 6, 6),
        ({"overfit_batches": 0.5}, 6, 6),
    ],
)
def test_ratio_and_counts(tmp_path: Path, options: dict[str, Any], batches: int, steps: int) -> None:
    seen, data, trainer = _fit(tmp_path, **options)
    assert seen.shares == [0.5] * batches and trainer.global_step == steps
    assert data.counts == {"real": 8 * batches, "synthetic": 8 * batches} and data.effective_ratio == 0.5
    if "overfit_batches" in options:
        assert seen.batches[:3] == seen.batches[3:]
    elif batches == 14:  # two epochs, each row once in each, in another order
        names = [name for batch in seen.batches for name in batch if name.startswith("train")]
        assert sorted(names[:56]) == sorted(names[56:]) == sorted(f"train-{i}" for i in range(56))
        assert names[:56] != names[56:]


@pytest.mark.parametrize(
    "options", [{"overfit_batches": 3}, {"fast_dev_run": 3}, {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 3}]
)
def test_ratio_and_counts_from_a_pool(tmp_path: Path, options: dict[str, Any]) -> None:
    seen, data, _ = _fit(tmp_path, has_pool=True, **options)
    batches = len(seen.shares)
    assert seen.shares == [0.5] * batches and data.counts == {"real": 8 * batches, "synthetic": 8 * batches}
    if "overfit_batches" in options:
        assert batches == 6 and seen.batches[:3] == seen.batches[3:]


@pytest.mark.parametrize(
    "options", [{"limit_train_batches": 3}, {"reload_dataloaders_every_n_epochs": 1}, {"accumulate_grad_batches": 3}]
)
def test_the_remainder_of_a_ratio_is_carried_on(tmp_path: Path, options: dict[str, Any]) -> None:
    seen, data, _ = _fit(tmp_path, 0.03, max_epochs=3, **options)
    drawn = 8 * len(seen.batches)
    assert data.counts == {"real": drawn - int(0.03 * drawn), "synthetic": int(0.03 * drawn)}


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_to_overfit_is_to_see_the_first_batches_of_the_mixture_again(tmp_path: Path, ratio: float) -> None:
    seen, _, _ = _fit(tmp_path, ratio, overfit_batches=2)
    whole, _, _ = _fit(tmp_path, ratio, max_epochs=1)
    assert seen.batches == whole.batches[:2] * 2
    assert len(set(np.array(seen.validated[:14]))) == 7  # two batches of a sorted split


@pytest.mark.parametrize("limit", [1, 3, 0.25])
def test_a_part_of_validation_holds_all_classes(tmp_path: Path, limit: float) -> None:
    seen, _, _ = _fit(tmp_path, max_epochs=1, limit_val_batches=limit)
    batches = 2 if limit == 0.25 else int(limit)
    assert np.bincount(seen.validated, minlength=7).tolist() == [batches] * 7


def test_all_of_validation_is_in_its_own_order(tmp_path: Path) -> None:
    seen, _, _ = _fit(tmp_path, max_epochs=1)
    assert seen.validated == sorted(seen.validated) and len(seen.validated) == 56
