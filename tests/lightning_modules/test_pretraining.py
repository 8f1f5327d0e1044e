"""FacePretraining on faces of noise: it trains, its progress is exact, its files load, a collapse is an error."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.rows.unlabelled import unlabelled_soft_labels
from lightning_modules.pretraining import FacePretraining
from synfer.representation.neighbours import neighbour_probabilities
from tests.fixtures.tiny_data import TinyReader, tiny_table

VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
SETTINGS: dict[str, Any] = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_kwargs": VIT,
    "stem": "native",
    "image_size": 8,
    "head": {"hidden": 8, "out": 6},
    "decoder": {"width": 8, "depth": 1, "num_heads": 2, "hidden_share": 0.5},
    "collapse": {"below": 0.0, "grace_steps": 0},
    "neighbours": {"neighbours": 3, "temperature": 0.1, "bank": None},
}


def module(**changes: Any) -> FacePretraining:
    torch.manual_seed(0)
    return FacePretraining(**{**SETTINGS, **changes})


def data(labelled: bool = True) -> ExpressionDataModule:
    tables = {"train": tiny_table(16, "train"), "val": tiny_table(9, "val")}
    if not labelled:
        table = tables["train"]
        object.__setattr__(table, "label", np.full(16, -1))
        object.__setattr__(table, "soft_label", unlabelled_soft_labels(16, len(table.label_space)))
    settings = {"batch_size": 8, "eval_batch_size": 4, "seed": 0, "augmentation": Augmentation(enabled=False)}
    return ExpressionDataModule(TinyReader(**tables), **settings)  # type: ignore[arg-type]


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(
        **{"accelerator": "cpu", "devices": 1, "default_root_dir": folder, "max_steps": 2, **quiet, **settings}
    )


@pytest.fixture(params=["simclr", "moco_v3", "byol", "mae"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FacePretraining, Trainer, dict[str, torch.Tensor]]:
    model = module(method=request.param)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = trainer(tmp_path)
    run.fit(model, datamodule=data())
    return model, run, before


def test_two_steps(trained: tuple[FacePretraining, Trainer, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    model, run, before = trained
    measured = run.callback_metrics
    assert measured["train/loss"].isfinite() and measured["train/embedding_std"] > 0
    assert 0 <= measured["val/knn_accuracy"] <= 1 and "val/knn_mean_class_accuracy" in measured
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in moved if name.startswith("backbone.")} and not learning & {"mean", "std"}
    teacher = {name for name in before if name.startswith("method.teacher.")}
    assert bool(teacher) == model.method.has_teacher
    for name in teacher & {f"method.teacher.{name}" for name in learning}:  # it has followed a little
        assert torch.equal(model.state_dict()[name], before[name]) is False

    # What it writes loads as data alone, with the teacher in it, and into another module of the same settings.
    run.save_checkpoint(tmp_path / "one.ckpt")
    content = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert content["kind"] == "pretraining" and teacher <= set(content["state_dict"])
    stored = FacePretraining.file_format.read_trained(tmp_path / "one.ckpt")
    again = FacePretraining(**stored.settings)
    again.load_state_dict(stored.weights)
    again.on_load_checkpoint(content)
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(again.eval()(image), model.eval()(image))


def test_the_score_is_that_of_all_training_faces(tmp_path: Path) -> None:
    model, rows = module(), data()
    run = trainer(tmp_path)
    run.fit(model, datamodule=rows)
    features = {}
    for split, table in (("train", rows.train_table), ("val", rows.val_table)):
        assert table is not None
        image = table.images.batch(np.arange(len(table))).float() / 255
        features[split] = model.eval()(image).detach(), torch.from_numpy(table.label)
    wanted = neighbour_probabilities(features["val"][0], *features["train"], 7, 3, 0.1).argmax(1)
    accuracy = float((wanted == features["val"][1]).float().mean())
    assert float(run.callback_metrics["val/knn_accuracy"]) == pytest.approx(accuracy)


def test_labels_teach_nothing(tmp_path: Path) -> None:
    found = []
    for labelled in (True, False):
        model = module()
        run = trainer(tmp_path)
        run.fit(model, datamodule=data(labelled))
        found.append(copy.deepcopy(model.state_dict()))
        assert ("val/knn_accuracy" in run.callback_metrics) == labelled
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_mixed_precision(tmp_path: Path) -> None:
    """Of the steps and of the progress: a bank of float32 rows meets features of the autocast."""
    run = trainer(tmp_path, precision="bf16-mixed")
    run.fit(module(), datamodule=data())
    assert 0 <= run.callback_metrics["val/knn_accuracy"] <= 1 and run.callback_metrics["train/loss"].isfinite()


def test_collapse_is_an_error_after_the_grace_steps(tmp_path: Path) -> None:
    model = module(collapse={"below": 0.5, "grace_steps": 10})
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.zero_()
    model.backbone.requires_grad_(False)  # features that never differ
    with pytest.raises(RuntimeError, match=r"^model\.collapse: .* found a spread of .* after 10 steps"):
        trainer(tmp_path, max_steps=20).fit(model, datamodule=data())


def test_another_method_does_not_take_the_weights() -> None:
    checkpoint: dict[str, Any] = {"state_dict": {}}
    module().on_save_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"model\.method: found byol, expected simclr, as in the checkpoint"):
        module(method="byol").on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="no checkpoint of FacePretraining"):
        module().on_load_checkpoint({"state_dict": {}})


def test_patches_may_stay_as_they_are() -> None:
    model = module(method="moco_v3", frozen_patches=True)
    assert not any(p.requires_grad for p in model.backbone.patch_embed.parameters())  # type: ignore[union-attr]
    groups = model.build_optimiser().param_groups
    optimised = {id(p) for group in groups for p in group["params"]}
    assert optimised == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(p.ndim > 1 for p in groups[0]["params"]) and groups[1]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.0), ("teacher_momentum", 1.5), ("image_size", 4), ("method", "moco_v2")]
)
def test_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"model\.{name}: found {value}, expected"):
        module(**{name: value})


def test_grey_faces(tmp_path: Path) -> None:
    model = module(in_channels=1, backbone_kwargs=VIT)
    trainer(tmp_path, max_steps=1).fit(model, datamodule=data())
    assert model.mean.shape == (1, 1, 1, 1)
