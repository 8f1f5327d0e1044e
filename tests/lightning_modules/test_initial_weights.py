"""A training that begins with the weights of a finished one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.generator import ExpressionGenerator
from lightning_modules.training_provenance import TrainingProvenance
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_generator import TINY_UNET, request_for, save_base, tiny_generator
from tests.lightning_modules.test_generator import fit, make_trainer, tiny_data, weights

UNRECORDED = "does not record which rows its weights have seen"


class WeightsAtTheStart(Callback):
    """Notes the weights that the first step meets, and how many steps the trainer had counted by then."""

    found: dict[str, torch.Tensor]
    steps: int
    source: dict[str, str] | None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found, self.steps = weights(pl_module), trainer.global_step
        self.source = getattr(pl_module, "weights_source", None)


def begun_with(path: Any, folder: Path, ckpt_path: Path | None = None, **changes: Any) -> WeightsAtTheStart:
    start = WeightsAtTheStart()
    fit(tiny_generator(initial_weights=str(path), **changes), folder, ckpt_path, callbacks=[start])
    return start


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of three steps with an average, as checkpoint and as folder."""
    folder = tmp_path_factory.mktemp("earlier")
    fitted = fit(tiny_generator(ema_decay=0.5), folder)
    fitted.trainer.save_checkpoint(folder / "earlier.ckpt")
    ExpressionGenerator.load_trained(folder / "earlier.ckpt").save_trained(folder / "trained")
    return folder


def test_a_training_begins_with_the_average_of_a_checkpoint(earlier: Path, tmp_path: Path) -> None:
    averaged = ExpressionGenerator.load_trained(earlier / "earlier.ckpt")
    start = begun_with(earlier / "earlier.ckpt", tmp_path)
    assert start.steps == 0
    assert start.source is not None and start.source["kind"] == "diffusion"
    assert start.source["path"] == str(earlier / "earlier.ckpt") and len(start.source["fingerprint"]) == 16
    assert all(torch.equal(start.found[name], tensor) for name, tensor in averaged.state_dict().items())
    own = torch.load(earlier / "earlier.ckpt", weights_only=True)["state_dict"]
    assert any(not torch.equal(start.found[name], tensor) for name, tensor in own.items())


def test_a_folder_does_too_and_says_that_it_has_no_rows(earlier: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=UNRECORDED):
        start = begun_with(earlier / "trained", tmp_path)
    loaded = ExpressionGenerator.load_trained(earlier / "trained")
    assert all(torch.equal(start.found[name], tensor) for name, tensor in loaded.state_dict().items())


def test_what_it_has_seen_is_all_that_both_have_seen(earlier: Path, tmp_path: Path) -> None:
    generator = tiny_generator(initial_weights=str(earlier / "earlier.ckpt"))
    trainer = make_trainer(tmp_path)
    trainer.fit(generator, datamodule=tiny_data(rows=32))
    trainer.save_checkpoint(tmp_path / "later.ckpt")
    seen = [
        set(TrainingProvenance.of_file(path, ()).trained_on.tolist())  # type: ignore[union-attr]
        for path in (earlier / "earlier.ckpt", tmp_path / "later.ckpt")
    ]
    assert seen[0] < seen[1] and len(seen[1]) >= 32


def test_a_resumed_training_and_a_loaded_model_do_not_ask_for_it(earlier: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes((earlier / "earlier.ckpt").read_bytes())
    fitted = fit(tiny_generator(initial_weights=str(moved)), tmp_path)
    fitted.trainer.save_checkpoint(tmp_path / "begun.ckpt")
    moved.unlink()
    assert torch.equal(
        ExpressionGenerator.load_trained(tmp_path / "begun.ckpt").synthesise(request_for()).images,
        fitted.eval().synthesise(request_for()).images,
    )
    start = WeightsAtTheStart()
    resumed = tiny_generator(initial_weights=str(moved))
    fit(resumed, tmp_path, tmp_path / "begun.ckpt", callbacks=[start], max_epochs=2)
    assert start.steps == 3 and resumed.trainer.global_step == 6
    assert all(torch.equal(start.found[name], tensor) for name, tensor in fitted.state_dict().items())


def test_lora_of_a_base_begins_with_lora(tmp_path: Path) -> None:
    settings = {"base": str(save_base(tmp_path / "base")), "trained": "lora", "ema_decay": None}
    fitted = fit(tiny_generator(**settings), tmp_path)
    fitted.trainer.save_checkpoint(tmp_path / "lora.ckpt")
    start = begun_with(tmp_path / "lora.ckpt", tmp_path, **settings)
    assert all(torch.equal(start.found[name], tensor) for name, tensor in fitted.state_dict().items())
    with pytest.raises(ValueError, match=r"found model.lora_alpha=None, expected this training's, 8"):
        begun_with(tmp_path / "lora.ckpt", tmp_path, **settings, lora_alpha=8.0)


def test_an_augmenter_begins_with_all_three_networks(tmp_path: Path) -> None:
    first = tiny_augmenter()
    trainer = make_trainer(tmp_path)
    trainer.fit(first, datamodule=tiny_data())
    trainer.save_checkpoint(tmp_path / "augmenter.ckpt")
    start = WeightsAtTheStart()
    later = tiny_augmenter(initial_weights=str(tmp_path / "augmenter.ckpt"))
    make_trainer(tmp_path, callbacks=[start]).fit(later, datamodule=tiny_data())
    own = torch.load(tmp_path / "augmenter.ckpt", weights_only=True)["state_dict"]
    discriminator = [name for name in own if "discriminator" in name]
    assert discriminator and all(torch.equal(start.found[name], own[name]) for name in discriminator)
    with pytest.raises(ValueError, match=r"found model.image_size|found model.network"):
        other = tiny_augmenter(initial_weights=str(tmp_path / "augmenter.ckpt"), image_size=48)
        make_trainer(tmp_path).fit(other, datamodule=tiny_data())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": {"prediction_type": "sample"}}, r"found model.network.scheduler=None, expected"),
        ({"unet": {**TINY_UNET, "block_out_channels": [32, 32]}}, r"found model.network.unet="),
    ],
)
def test_weights_that_would_mean_something_else_are_refused(
    changes: dict[str, Any], message: str, earlier: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        begun_with(earlier / "earlier.ckpt", tmp_path, **changes)


def test_rows_that_are_held_out_must_not_have_been_seen(earlier: Path, tmp_path: Path) -> None:
    generator = tiny_generator(initial_weights=str(earlier / "earlier.ckpt"))
    with pytest.raises(ValueError, match=r"data.folds=2, data.fold=0: found .+ with folds=None"):
        make_trainer(tmp_path).fit(generator, datamodule=tiny_data(folds=2, fold=0))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.ckpt", FileNotFoundError, r"model.initial_weights '.+missing.ckpt'"),
        ("torn.ckpt", ValueError, r"torn.ckpt"),
        ("augmenter.ckpt", ValueError, r"expected one of an ExpressionGenerator, found another model's"),
    ],
)
def test_what_is_no_generator_is_refused_in_one_line(
    name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "torn.ckpt").write_bytes(b"no checkpoint")
    if name == "augmenter.ckpt":
        trainer = make_trainer(tmp_path)
        trainer.fit(tiny_augmenter(), datamodule=tiny_data())
        trainer.save_checkpoint(tmp_path / name)
    with pytest.raises(error, match=message) as raised:
        begun_with(tmp_path / name, tmp_path)
    assert "\n" not in str(raised.value)
