"""A classifier on a pretrained backbone from a folder, whole or frozen, and its checkpoint without that folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from lightning_modules.classifier import ExpressionClassifier
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.synfer.networks.test_backbone_source import NAME, save_folder


def classifier(backbone: str, **settings: object) -> ExpressionClassifier:
    given = {"backbone": backbone, "image_size": 32, "stem": "native", "ema_decay": 0.5, "learning_rate": 0.1}
    return ExpressionClassifier(**{**given, **settings})  # type: ignore[arg-type]


def fit(model: ExpressionClassifier, folder: Path) -> Path:
    data = ExpressionDataModule(
        TinyReader(train=tiny_table(28, side=32), val=tiny_table(14, "val", side=32)),
        batch_size=14,
        augmentation=Augmentation(enabled=False),
    )
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, limit_val_batches=0, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "trained.ckpt")
    return folder / "trained.ckpt"


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_frozen_but_for_the_last_layer(tmp_path: Path) -> None:
    stored = save_folder(tmp_path / "net")
    model = classifier(str(tmp_path / "net"), freeze_backbone=True)
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    checkpoint = fit(model, tmp_path)
    after = model.backbone.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    head = {name for name in after if after[name].shape != stored[name].shape}
    assert moved == head == {"fc.weight", "fc.bias"}  # the statistics of the norms stay as well
    same = [name for name in after if name not in head]
    assert all(torch.equal(after[name], stored[name]) for name in same)
    shutil.rmtree(tmp_path / "net")  # the checkpoint is enough
    loaded = ExpressionClassifier.load_trained(checkpoint)
    assert loaded.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    image = torch.rand(2, 3, 32, 32)
    assert loaded.predict_probabilities(image).shape == (2, 7)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_random_weights_are_not_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"freeze_backbone.*expected pretrained weights \(model\.backbone=hf_hub:"):
        fit(classifier(NAME, freeze_backbone=True), tmp_path)


def test_a_whole_network_starts_from_the_folder(tmp_path: Path) -> None:
    stored = save_folder(tmp_path / "net")
    model = classifier(str(tmp_path / "net"))
    own = model.backbone.state_dict()
    assert [name for name in own if own[name].shape == stored[name].shape and torch.equal(own[name], stored[name])]
    assert all(p.requires_grad for p in model.backbone.parameters())
