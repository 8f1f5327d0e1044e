"""ZeroShot: UAR and WAR of the sentences that fit best, by name; a projection that learns and belongs to one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.nn import functional as F
from transformers import CLIPModel

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from lightning_modules.zero_shot import ZeroShot
from synfer.faces.expression_prompts import prompts_of
from tests.fixtures.outside_models import save_clip
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.lightning_modules.test_pretraining import module, trainer

SPACE = ("neutral", "happy", "sad")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_clip(tmp_path_factory.mktemp("clip") / "model"))


def data(space: tuple[str, ...] = SPACE, rows: int = 17) -> ExpressionDataModule:
    tables = {split: tiny_table(rows, split, side=16, label_space=space) for split in ("train", "val", "test")}
    for table in tables.values():
        object.__setattr__(table, "caption", np.array([f"a {space[label]} face" for label in table.label]))
    settings: dict[str, Any] = {"batch_size": 8, "eval_batch_size": 5, "seed": 0}
    return ExpressionDataModule(TinyReader(**tables), augmentation=Augmentation(enabled=False), **settings)


class Losses(Callback):
    """Writes down the loss of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, *given: Any) -> None:
        self.seen.append(float(given[2]["loss"]))


def scored(model: ZeroShot, folder: Path, space: tuple[str, ...] = SPACE) -> dict[str, float]:
    run = trainer(folder)
    run.test(model, datamodule=data(space), verbose=False)
    return {name: float(value) for name, value in run.callback_metrics.items()}


def test_uar_and_war_are_those_of_the_best_sentences(clip: str, tmp_path: Path) -> None:
    model = ZeroShot(clip)
    found = scored(model, tmp_path)
    table = tiny_table(17, "test", side=16, label_space=SPACE)
    faces = table.images.batch(np.arange(17)).expand(-1, 3, -1, -1).float() / 255
    classes = []
    for sentences in prompts_of("templates", SPACE).values():  # written out: unit rows, their mean, a unit row
        assert len(sentences) > 1
        classes.append(F.normalize(torch.stack([model.clip.text([s])[0] for s in sentences]).mean(0), dim=0))
    named = (model.clip(faces) @ torch.stack(classes).T).argmax(1).numpy()
    right = named == table.label
    assert found["test/war"] == pytest.approx(right.mean())
    assert found["test/uar"] == pytest.approx(np.mean([right[table.label == k].mean() for k in range(3)]))
    assert found["test/uar"] != found["test/war"]  # 6, 6 and 5 faces
    assert found["test/uar"] == found["test/mean_class_accuracy"] and found["test/war"] == found["test/accuracy"]


def test_classes_are_told_by_name(clip: str, tmp_path: Path) -> None:
    """Neither the order of the data's classes nor that of the prompts matters."""
    words = {"sad": ["a sad face"], "happy": ["a happy face"], "neutral": ["a face", "a calm face"]}
    model = ZeroShot(clip, prompts=words)
    rows = dict(zip(SPACE, model.class_rows(SPACE), strict=True))
    turned = SPACE[::-1]
    for name, row in zip(turned, model.class_rows(turned), strict=True):
        torch.testing.assert_close(row, rows[name])
    found = scored(ZeroShot(clip, prompts=dict(reversed(words.items()))), tmp_path / "turned")
    assert found == scored(model, tmp_path / "first")
    with pytest.raises(ValueError, match="surprise"):
        model.class_rows((*SPACE, "surprise"))


@pytest.mark.parametrize("target", ["captions", "network"])
def test_a_projection_learns_and_nothing_else_does(target: str, clip: str, tmp_path: Path) -> None:
    """After Exp-CLIP: one linear layer for pictures and words; labels are not looked at."""
    if target == "network":
        run = trainer(tmp_path)
        run.strategy.connect(module())
        run.save_checkpoint(tmp_path / "network.ckpt")
        target = str(tmp_path / "network.ckpt")
    torch.manual_seed(0)
    model = ZeroShot(clip, target=target, learning_rate=0.03, schedule="constant", warmup_fraction=0.0)
    assert model.projection is not None
    assert model.projection.weight.shape == (8, 8)
    before = model.projection.weight.detach().clone()
    eye = before @ before.T
    torch.testing.assert_close(eye, torch.eye(len(eye)), atol=1e-5, rtol=0)  # angles are those of the model
    frozen = {name: tensor.clone() for name, tensor in model.clip.model.state_dict().items()}
    losses = Losses()
    run = trainer(tmp_path, max_steps=40, max_epochs=-1, limit_val_batches=0, callbacks=[losses])
    run.fit(model, datamodule=data(rows=16))
    assert np.mean(losses.seen[-4:]) < np.mean(losses.seen[:4]) - 0.05
    assert [name for name, _ in model.named_parameters()] == ["projection.weight"]
    assert not torch.equal(model.projection.weight, before)
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.clip.model.state_dict().items())


def test_a_projection_belongs_to_its_model(clip: str, tmp_path: Path) -> None:
    model = ZeroShot(clip, target="captions", width=5)
    run = trainer(tmp_path)
    run.fit(model, datamodule=data())
    run.save_checkpoint(tmp_path / "projection.ckpt")
    stored = torch.load(tmp_path / "projection.ckpt", weights_only=True)
    assert list(stored["state_dict"]) == ["projection.weight"]
    again = ZeroShot(clip, target="captions", width=5)
    trainer(tmp_path).test(again, datamodule=data(), ckpt_path=str(tmp_path / "projection.ckpt"), verbose=False)
    assert torch.equal(again.projection.weight, model.projection.weight)  # type: ignore[union-attr]
    assert again(torch.rand(2, 3, 16, 16)).shape == again.class_rows(SPACE[:2]).shape == (2, 5)

    other = save_clip(tmp_path / "other")
    changed = CLIPModel.from_pretrained(other)
    changed.visual_projection.weight.data += 1
    changed.save_pretrained(other)
    with pytest.raises(ValueError, match=r"^model\.clip: found [0-9a-f]{16}, expected [0-9a-f]{16}, as in the"):
        wrong = ZeroShot(str(other), target="captions", width=5)
        trainer(tmp_path).test(wrong, datamodule=data(), ckpt_path=str(tmp_path / "projection.ckpt"), verbose=False)


def test_what_cannot_be(clip: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^model\.clip: found /nowhere, expected the folder of a CLIP model"):
        ZeroShot("/nowhere")
    with pytest.raises(ValueError, match=r"^model\.temperature: found 0, expected a number > 0"):
        ZeroShot(clip, temperature=0)
    with pytest.raises(ValueError, match=r"^model\.target: found None, expected captions or a network"):
        trainer(tmp_path).fit(ZeroShot(clip), datamodule=data())
    run = trainer(tmp_path)
    run.strategy.connect(module())
    run.save_checkpoint(tmp_path / "network.ckpt")
    with pytest.raises(ValueError, match=r"^model\.width: found 4, expected null with a network as model\.target"):
        ZeroShot(clip, target=str(tmp_path / "network.ckpt"), width=4)
