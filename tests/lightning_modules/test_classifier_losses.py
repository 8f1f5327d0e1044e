"""Losses for rare classes inside the classifier: what trains, what is evaluated, what files hold."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.class_sampling import ClassSampling
from lightning_modules.classifier import ExpressionClassifier
from synfer.labels.long_tail_losses import LossSettings
from synfer.networks.class_activation import with_mirrored_maps
from synfer.networks.normalised_head import NormalisedHead
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.lightning_modules.test_classifier import TinyData, loss_of, make_batch, tiny, trainer

LDAM_DRW: dict[str, Any] = {
    "loss": LossSettings("ldam", defer_from=0.5, beta=0.9),
    "class_weights": "effective_number",
}
MINED: dict[str, Any] = {"loss": LossSettings(consistency=0.5, smoothing="rebalanced"), "label_smoothing": 0.3}
BASIC7 = {"label_space": "basic7", "image_size": 24}


def _real_data(**settings: Any) -> ExpressionDataModule:
    reader = TinyReader(train=tiny_table(84, side=24), val=tiny_table(14, "val", side=24))
    return ExpressionDataModule(reader, batch_size=8, seed=1, **settings)


def test_synthetic_samples_weigh_what_they_are_told_to_under_any_loss() -> None:
    classifier, batch = tiny(synthetic_loss_weight=0.25, loss=LossSettings("focal", gamma=1.0)), make_batch(6)
    p = classifier.eval()(batch["image"]).softmax(1).gather(1, batch["label"].unsqueeze(1)).squeeze(1)
    weight = torch.where(batch["is_synthetic"], 0.25, 1.0)
    expected = (-(1 - p) * p.log() * weight).sum() / weight.sum()
    torch.testing.assert_close(loss_of(classifier, batch), expected)


def test_weights_by_effective_number_come_from_the_training_rows(tmp_path: Path) -> None:
    classifier = tiny(class_weights="effective_number", loss=LossSettings(beta=0.9))
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(classifier, datamodule=TinyData())
    e6, e2 = sum(0.9**i for i in range(6)), 1.9
    expected = torch.tensor([1 / e6, 1 / e2, 0.0])
    rows = torch.tensor([6.0, 2.0, 0.0])
    torch.testing.assert_close(classifier.class_weights, expected * 8 / (expected * rows).sum())


def test_weights_are_deferred(tmp_path: Path) -> None:
    classifier, seen = tiny(**LDAM_DRW), []
    plain_step = classifier.training_step

    def step(batch: Any, batch_idx: int) -> torch.Tensor:
        seen.append(classifier._class_weights_now())
        return plain_step(batch, batch_idx)

    classifier.training_step = step  # type: ignore[method-assign, assignment]
    trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(classifier, datamodule=TinyData())
    assert seen[:4] == [None] * 4 and all(w is classifier.class_weights for w in seen[4:]) and len(seen) == 8
    assert not torch.equal(classifier.class_weights, torch.ones(3))


def test_a_resumed_run_defers_as_the_whole_one(tmp_path: Path) -> None:
    whole, resumed = tiny(**LDAM_DRW), tiny(**LDAM_DRW)
    trainer(tmp_path, max_epochs=2).fit(whole, datamodule=TinyData())
    # Half of the same training, by its length in steps.
    first = trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    half = tiny(**LDAM_DRW)
    half.on_train_epoch_end = lambda: first.save_checkpoint(tmp_path / f"{first.current_epoch}.ckpt")  # type: ignore[method-assign]
    first.fit(half, datamodule=TinyData())
    second = trainer(tmp_path, max_epochs=2)
    second.fit(resumed, datamodule=TinyData(), ckpt_path=tmp_path / "0.ckpt", weights_only=True)
    assert resumed.weights_fingerprint() == whole.weights_fingerprint()


def test_ldam_has_a_cosine_for_a_last_layer_and_loads(tmp_path: Path) -> None:
    classifier, data = tiny(**LDAM_DRW), TinyData()
    run = trainer(tmp_path, max_epochs=2)
    run.fit(classifier, datamodule=data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert isinstance(classifier.backbone.get_classifier(), NormalisedHead)  # type: ignore[operator]
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["expression_classifier"]["config"]["loss"] == asdict(LDAM_DRW["loss"])
    assert not [name for name in stored["state_dict"] if "class_losses" in name]
    loaded = ExpressionClassifier.load_trained(tmp_path / "last.ckpt")
    assert loaded.loss_settings == LDAM_DRW["loss"]
    assert classifier.ema is not None
    image = torch.rand(4, 3, 24, 24)
    with classifier.ema.swapped(), torch.no_grad():
        torch.testing.assert_close(loaded(image), classifier.eval()(image))
    again = ExpressionClassifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True, map_location="cpu")
    assert again.weights_fingerprint() == classifier.weights_fingerprint()
    # Evaluation: the plain cross-entropy of the logits, no margin, no weight.
    p = torch.cat([loaded.predict_probabilities(batch["image"]) for batch in data.val])
    label = torch.cat([batch["label"] for batch in data.val])
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(float(F.nll_loss(p.log(), label)), abs=1e-5)


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (LDAM_DRW, {}, r"model\.loss\.scale: found None, expected 30\.0 with loss\.kind=ldam, as in the checkpoint"),
        ({}, LDAM_DRW, r"model\.loss\.scale: found 30\.0, expected none \(loss\.kind is not ldam\), as in the checkp"),
        (LDAM_DRW, {"loss": LossSettings("ldam", scale=10.0)}, r"found 10\.0, expected 30\.0 with loss\.kind=ldam"),
    ],
)
def test_a_checkpoint_with_another_last_layer_is_refused(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], message: str
) -> None:
    run = trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    run.fit(tiny(**before), datamodule=TinyData())
    run.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).test(tiny(**now), datamodule=TinyData(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def test_a_checkpoint_of_before_has_plain_cross_entropy() -> None:
    path = Path(__file__).parents[1] / "fixtures" / "cacc19f" / "classifier-step3.ckpt"
    assert "loss" not in torch.load(path, weights_only=True)["expression_classifier"]["config"]
    assert ExpressionClassifier.load_trained(path).loss_settings == LossSettings()


def test_the_prior_is_told_before_training_and_nothing_else_changes(tmp_path: Path) -> None:
    plain, adjusted, even = (
        tiny(**BASIC7, loss=LossSettings(kind)) for kind in ("cross_entropy", *["logit_adjustment"] * 2)
    )  # type: ignore[arg-type]
    for classifier, settings in (
        (plain, {"class_sampling": ClassSampling("balanced")}),
        (even, {"class_sampling": ClassSampling("balanced")}),
        (adjusted, {"imbalance": 3.0}),
    ):
        trainer(tmp_path, limit_val_batches=0).fit(classifier, datamodule=_real_data(**settings))
    offset, of_synthetic = adjusted.class_losses.get_buffer("offset")
    assert torch.equal(offset, of_synthetic)
    assert offset.exp().sum() == pytest.approx(1) and float((offset.max() - offset.min()).exp()) == pytest.approx(3)
    # Drawn evenly, the adjusted loss is the plain one up to rounding.
    assert float(even.class_losses.get_buffer("offset").std()) == pytest.approx(0, abs=1e-6)
    for one, other in zip(plain.backbone.parameters(), even.backbone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_two_remedies_for_one_ill_are_said(tmp_path: Path) -> None:
    classifier = tiny(**BASIC7, class_weights="balanced")
    with pytest.warns(
        UserWarning, match=r"model\.class_weights 'balanced' beside data\.class_balance=1\.0, data\.class"
    ):
        trainer(tmp_path, limit_val_batches=0).fit(classifier, datamodule=_real_data(class_balance=1.0))


def test_wrong_settings_are_one_plain_line() -> None:
    for changes, message in (
        ({"loss": LossSettings("logit_adjustment"), "class_weights": "balanced"}, "expected null beside"),
        ({"loss": LossSettings(defer_from=0.5)}, r"model\.loss\.defer_from: found 0\.5, expected 0 without"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            tiny(**changes)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["focal", "ldam"])
def test_training_learns_under_any_loss(kind: Any, tmp_path: Path) -> None:
    data = TinyData()
    classifier = tiny(loss=LossSettings(kind))
    run = trainer(tmp_path, max_epochs=24, limit_val_batches=0)
    run.fit(classifier, datamodule=data)
    assert float(run.callback_metrics["train/accuracy"]) > 0.8


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("settings", [LDAM_DRW, MINED, {"loss": LossSettings("logit_adjustment")}])
def test_two_ranks_train_under_any_loss(settings: dict[str, Any], tmp_path: Path) -> None:
    classifier, data = (
        tiny(**BASIC7, **settings),
        _real_data(class_sampling=ClassSampling("square_root"), imbalance=4.0),
    )
    before = classifier.weights_fingerprint()
    both = trainer(tmp_path, devices=2, strategy="ddp_spawn", max_epochs=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*beside data.class_balance.*")
        both.fit(classifier, datamodule=data)
    assert math.isfinite(float(both.callback_metrics["val/loss"]))
    assert classifier.weights_fingerprint() != before
    assert all(bool(parameter.isfinite().all()) for parameter in classifier.parameters())


def test_mined_knowledge_is_in_the_loss() -> None:
    classifier, batch = tiny(**MINED), make_batch(6)
    assert classifier.mined_knowledge is not None
    classifier.mined_knowledge.adapt(torch.tensor([6, 2, 1]))
    classifier.eval()
    weights = torch.tensor([9 / 18, 9 / 6, 9 / 3])
    logits, maps, mirrored = with_mirrored_maps(classifier.backbone, classifier, batch["image"])
    target = classifier.mined_knowledge.smoothed(batch["soft_label"], 0.3)
    difference = ((maps - mirrored.flip(-1)) ** 2).mean((2, 3)) @ weights
    expected = F.cross_entropy(logits, target) + 0.5 * difference.mean()
    assert float(difference.detach().min()) > 0
    torch.testing.assert_close(loss_of(classifier, batch), expected)


def test_mined_knowledge_trains_and_loads(tmp_path: Path) -> None:
    classifier = tiny(**MINED)
    run = trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    run.fit(classifier, datamodule=TinyData())
    torch.testing.assert_close(classifier.mined_knowledge.class_weights, torch.tensor([8 / 18, 8 / 6, 0.0]))  # type: ignore[union-attr]
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert ExpressionClassifier.load_trained(tmp_path / "last.ckpt").loss_settings == MINED["loss"]


def test_a_backbone_without_attention_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.loss\.consistency: found features \(1, 5, 192\) at the end"):
        tiny(
            backbone="vit_tiny_patch16_224",
            backbone_kwargs={"img_size": 32},
            image_size=32,
            loss=LossSettings(consistency=1.0),
        )
