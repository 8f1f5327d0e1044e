"""ExpressionClassifier with valence and arousal beside the expressions, or alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.rows.sample_table import UNLABELLED, SampleTable
from datamodules.rows.unlabelled import unlabelled_soft_labels
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.labeller import Labeller
from lightning_modules.voter import load_voter
from synfer.labels.affect_losses import AffectSettings
from synfer.labels.long_tail_losses import LossSettings
from synfer.labels.soft_label_loss import soft_label_losses
from synfer.metrics.affect_scores import AffectScores
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.lightning_modules.test_classifier import TINY

ALONE = AffectSettings(enabled=True, alone=True)


def tiny(affect: AffectSettings = AffectSettings(enabled=True), **changes: Any) -> ExpressionClassifier:  # noqa: B008
    torch.manual_seed(0)
    settings = {**TINY, "label_space": "basic7", "backbone_kwargs": {"channels": [4, 4, 8, 8], "stem_width": 4}}
    return ExpressionClassifier(**{**settings, "image_size": 24, "affect": affect, **changes})


def rated(split: str, count: int = 28, named: bool = True) -> SampleTable:
    """Noise; every third row lacks both numbers, every fifth its arousal, and every fourth its expression."""
    table = tiny_table(count, split, side=24)
    rows = np.arange(count)
    affect = np.random.default_rng(3).uniform(-1, 1, (count, 2)).astype(np.float32)
    affect[rows % 3 == 0] = np.nan
    affect[rows % 5 == 0, 1] = np.nan
    unnamed = rows % 4 == 1 if named else rows >= 0
    soft_label = table.soft_label.copy()
    soft_label[unnamed] = unlabelled_soft_labels(int(unnamed.sum()), 7)
    return replace(table, affect=affect, label=np.where(unnamed, UNLABELLED, table.label), soft_label=soft_label)


def data_of(named: bool = True, **changes: Any) -> ExpressionDataModule:
    tables = {split: rated(split, named=named) for split in ("train", "val", "test")}
    plain = Augmentation(flip=0.5)
    return ExpressionDataModule(TinyReader(**tables), batch_size=14, eval_batch_size=5, augmentation=plain, **changes)


def trainer(folder: Path, epochs: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


def test_rows_are_scored_by_what_is_known_of_them(tmp_path: Path) -> None:
    model, data, run = tiny(), data_of(), trainer(tmp_path)
    run.fit(model, datamodule=data)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    assert found["train/loss_affect"] > 0 and found["train/loss"] > found["train/loss_affect"]
    run.test(model, datamodule=data, verbose=False)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    table = data.test_table
    assert table is not None and table.affect is not None and model.ema is not None
    images = table.images.batch(np.arange(len(table))).float() / 255
    with model.ema.swapped(), torch.no_grad():
        probabilities, ratings = model.eval().probabilities_and_affect(images.expand(-1, 3, -1, -1))
    assert ratings is not None
    scores = AffectScores()
    scores.update(ratings, torch.from_numpy(table.affect))
    expected = {f"test/{name}": value for name, value in scores.compute().items()}
    assert len(expected) == 9 and {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    named = table.label != UNLABELLED
    right = probabilities.argmax(1).numpy()[named] == table.label[named]
    assert found["test/accuracy"] == pytest.approx(right.mean())


def test_what_is_not_known_of_a_row_does_not_change_the_loss() -> None:
    model = tiny(loss=LossSettings(kind="focal"), flip_tta=False).eval()
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    image, label = torch.rand(6, 3, 24, 24), torch.tensor([0, 1, UNLABELLED, 3, UNLABELLED, 5])
    soft_label = torch.nn.functional.one_hot(label.clamp_min(0), 7).float()
    batch: Any = {
        "image": image,
        "label": label,
        "soft_label": soft_label,
        "affect": torch.tensor([[0.5, 0.1], [-0.5, math.nan], [0.2, 0.4], [math.nan] * 2, [math.nan] * 2, [0.1, -0.9]]),
        "is_synthetic": torch.zeros(6, dtype=torch.bool),
    }
    loss = model.training_step(batch, 0)
    for name, row, value in (("soft_label", 2, soft_label[0]), ("soft_label", 4, soft_label[1])):
        changed = batch[name].clone()
        changed[row] = value
        assert torch.equal(model.training_step({**batch, name: changed}, 0), loss)
    without = {key: values[[0, 1, 2, 5]] for key, values in batch.items()}
    apart = {key: values[[0, 1, 3, 5]] for key, values in batch.items()}
    apart["affect"] = torch.full((4, 2), math.nan)
    without["label"] = torch.full((4,), UNLABELLED)
    parts = model.training_step(without, 0) + model.training_step(apart, 0)
    assert float(loss.detach()) == pytest.approx(float(parts.detach()), abs=1e-5)


def test_without_the_head_nothing_changes() -> None:
    plain, batch_image = tiny(AffectSettings()), torch.rand(4, 3, 24, 24)
    assert plain.logits_and_affect(batch_image)[1] is None and plain(batch_image).shape == (4, 7)
    assert not plain.uses_unlabelled_rows and tiny().uses_unlabelled_rows
    assert plain._config["affect"] == {"enabled": False, "loss": "ccc", "weight": 1.0, "alone": False}
    assert soft_label_losses(plain(batch_image), torch.full((4, 7), 1 / 7)).shape == (4,)


def test_ratings_stay_on_the_scale_and_a_mirror_image_has_the_same() -> None:
    model, image = tiny().eval(), torch.rand(5, 3, 30, 24)
    with torch.no_grad():
        model.backbone.get_classifier().weight.mul_(1000)  # type: ignore[operator,union-attr]
        one, other = (model.probabilities_and_affect(picture, flip=True)[1] for picture in (image, image.flip(-1)))
    assert one is not None and other is not None and one.abs().max() <= 1
    assert torch.allclose(one, other, atol=1e-5)


def test_alone_names_no_expressions(tmp_path: Path) -> None:
    model, data, run = tiny(ALONE), data_of(named=False), trainer(tmp_path)
    run.fit(model, datamodule=data)
    assert "val/ccc_mean" in run.callback_metrics and "val/accuracy" not in run.callback_metrics
    assert "train/accuracy" not in run.callback_metrics
    run.test(model, datamodule=data, verbose=False)
    assert "test/ccc_mean" in run.callback_metrics and "test/accuracy" not in run.callback_metrics
    run.strategy.connect(model)
    run.save_checkpoint(tmp_path / "alone.ckpt")
    labeller = Labeller.load_trained(tmp_path / "alone.ckpt")
    (face,) = labeller.label(torch.rand(1, 3, 24, 24))
    assert face.label == "" and face.probabilities == {} and face.valence is not None and abs(face.valence) <= 1
    with pytest.raises(ValueError, match=r"alone.ckpt': found one of valence and arousal alone \(model.affect.alone\)"):
        load_voter(tmp_path / "alone.ckpt")


def test_a_checkpoint_and_a_folder_keep_the_head(tmp_path: Path) -> None:
    model = tiny().eval()
    run = trainer(tmp_path)
    run.strategy.connect(model)
    run.save_checkpoint(tmp_path / "both.ckpt")
    model.save_trained(tmp_path / "folder")
    image = torch.rand(3, 3, 24, 24)
    expected = model.probabilities_and_affect(image)[1]
    assert expected is not None
    for place in ("both.ckpt", "folder"):
        found = ExpressionClassifier.load_trained(tmp_path / place).probabilities_and_affect(image)[1]
        assert found is not None and torch.allclose(found, expected, atol=1e-6)
    stored = torch.load(tmp_path / "both.ckpt", weights_only=True)
    with pytest.raises(ValueError, match=r"affect.enabled: found False, expected True, as in the checkpoint"):
        tiny(AffectSettings()).on_load_checkpoint(stored)


@pytest.mark.parametrize(
    ("affect", "change", "message"),
    [
        (AffectSettings(enabled=True), {"affect": None}, r"affect.enabled=true: found no valence or arousal of any of"),
        (AffectSettings(enabled=True), "unnamed", r"affect.alone=false: found 28 training rows without an expression"),
        ("prior", {}, r"model.loss.kind: found 'logit_adjustment' and 7 of 28 training rows without an expression"),
    ],
)
def test_rows_that_cannot_teach_it_are_refused(tmp_path: Path, affect: Any, change: Any, message: str) -> None:
    tables = {split: rated(split, named=change != "unnamed") for split in ("train", "val")}
    if isinstance(change, dict):
        tables["train"] = replace(tables["train"], **change)
    prior = affect == "prior"
    loss = LossSettings(kind="logit_adjustment") if prior else LossSettings()
    model = tiny(AffectSettings(enabled=True) if prior else affect, loss=loss)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(model, datamodule=ExpressionDataModule(TinyReader(**tables), batch_size=14))


def test_without_the_head_rows_without_an_expression_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found 7 of 28 train rows without an expression"):
        trainer(tmp_path).fit(tiny(AffectSettings()), datamodule=data_of())


def test_a_cosine_as_last_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.affect.enabled: found True, expected false beside model.loss"):
        tiny(loss=LossSettings(kind="ldam"))
