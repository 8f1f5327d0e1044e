"""A classifier that takes sharpness-aware steps: two looks at each batch, counted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.batch import Batch
from lightning_modules.classifier import ExpressionClassifier
from tests.lightning_modules.test_backbone_weights import NETWORK
from tests.lightning_modules.test_pretraining import data, trainer


class Looks(ExpressionClassifier):
    """Writes down what the loss was at each look."""

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss.detach()))
        return loss


def trained(folder: Path, **settings: Any) -> tuple[Looks, Any]:
    torch.manual_seed(0)
    model = Looks(**NETWORK, optimizer="sgd", learning_rate=1e-3, ema_decay=None, flip_tta=False, **settings)
    model.losses = []
    run = trainer(folder, limit_val_batches=0)
    run.fit(model, datamodule=data())
    return model, run


def test_the_worst_place_is_worse_and_no_part_of_the_loss(tmp_path: Path) -> None:
    model, run = trained(tmp_path, sam_rho=0.5)
    assert run.global_step == 2 and len(model.losses) == 4
    assert model.losses[1] > model.losses[0] and model.losses[3] > model.losses[2]
    assert float(run.callback_metrics["train/loss"]) == pytest.approx((model.losses[0] + model.losses[2]) / 2, rel=1e-5)
    plain, _ = trained(tmp_path)
    assert len(plain.losses) == 2
    assert not torch.equal(plain.backbone.fc.weight, model.backbone.fc.weight)


def test_gradients_of_several_batches_are_refused(tmp_path: Path) -> None:
    model = ExpressionClassifier(**NETWORK, sam_rho=0.05)
    with pytest.raises(ValueError, match=r"^trainer\.accumulate_grad_batches: found 2, expected 1 with model\.sam_rho"):
        trainer(tmp_path, accumulate_grad_batches=2).fit(model, datamodule=data())
    with pytest.raises(ValueError, match=r"^model\.sam_rho: found -1"):
        ExpressionClassifier(**NETWORK, sam_rho=-1)
