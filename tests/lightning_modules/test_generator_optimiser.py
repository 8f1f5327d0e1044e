"""A generator that learns by Muon: all that a training by AdamW can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_modules.generator import ExpressionGenerator
from synfer.optimisation.muon import Muon
from tests.fixtures.tiny_generator import TINY_AUTOENCODER, save_base, tiny_generator
from tests.lightning_modules.test_generator import changed, fit, make_trainer, tiny_data, weights


def test_a_fit_lowers_the_validation_loss(tmp_path: Path) -> None:
    generator = tiny_generator(optimizer="muon", learning_rate=5e-3)
    trainer = make_trainer(tmp_path, max_epochs=12, limit_val_batches=1.0)
    before = trainer.validate(generator, datamodule=tiny_data(), verbose=False)[0]["val/loss"]
    trainer.fit(generator, datamodule=tiny_data())
    assert isinstance(trainer.optimizers[0], Muon)
    assert trainer.callback_metrics["val/loss"] < 0.95 * before


def test_rates_rise_and_fall_together(tmp_path: Path) -> None:
    generator = tiny_generator(optimizer="muon", learning_rate=1e-3, matrix_rate=5.0, warmup_fraction=0.5)
    fit(generator, tmp_path, max_steps=2, max_epochs=-1)
    first, second = generator.trainer.optimizers[0].param_groups
    assert first["lr"] == pytest.approx(5 * second["lr"]) and first["initial_lr"] == 5e-3


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_resumed_run_goes_on_as_if_never_stopped(clip: float | None, tmp_path: Path) -> None:
    def through(epochs: int, resume: Path | None = None) -> ExpressionGenerator:
        checkpoint = ModelCheckpoint(tmp_path / str(resume is None), filename="{epoch}", save_top_k=-1)
        generator = tiny_generator(optimizer="muon", ema_decay=0.9)
        return fit(generator, tmp_path, resume, max_epochs=epochs, callbacks=[checkpoint], gradient_clip_val=clip)

    whole = through(3)
    stored = tmp_path / "True" / "epoch=0.ckpt"
    torch.load(stored, weights_only=True)
    resumed = through(3, stored)
    assert not changed(weights(whole), weights(resumed))
    assert whole.ema is not None and resumed.ema is not None
    assert not changed(whole.ema.average, resumed.ema.average)


@pytest.mark.parametrize(("before", "after"), [("adamw", "muon"), ("muon", "adamw"), (None, "muon")])
def test_a_checkpoint_of_another_optimiser_is_gone_on_from_by_its_own_alone(
    before: Any, after: Any, tmp_path: Path
) -> None:
    generator = fit(tiny_generator(optimizer=before or "adamw"), tmp_path)
    generator.trainer.save_checkpoint(tmp_path / "x.ckpt")
    if before is None:  # of before there was a choice
        stored = torch.load(tmp_path / "x.ckpt", weights_only=True)
        del stored["hyper_parameters"]["optimizer"]
        torch.save(stored, tmp_path / "x.ckpt")
    message = rf"model.optimizer: found {after}, expected {before or 'adamw'}, as in the checkpoint"
    with pytest.raises(ValueError, match=message):
        fit(tiny_generator(optimizer=after), tmp_path, tmp_path / "x.ckpt", max_epochs=2)
    other = tiny_generator(optimizer=after)  # which matters in a fit alone
    make_trainer(tmp_path, limit_val_batches=1.0).validate(
        other, datamodule=tiny_data(), ckpt_path=tmp_path / "x.ckpt", verbose=False
    )
    assert not changed(weights(generator), weights(other))


@pytest.mark.parametrize("trained", ["all", "unet_only"])
def test_the_whole_unet_of_a_base_learns_by_it_and_lora_does_not(trained: Any, tmp_path: Path) -> None:
    base = str(save_base(tmp_path / "base"))
    generator = tiny_generator(base=base, trained=trained, optimizer="muon")
    before = weights(generator)
    fit(generator, tmp_path, gradient_clip_val=1.0)
    assert len(changed(before, weights(generator))) > 0.9 * len(list(generator.model.unet.parameters()))
    with pytest.raises(ValueError, match=r"model.optimizer: found muon with model.trained 'lora', expected adamw"):
        tiny_generator(base=base, trained="lora", optimizer="muon")


@pytest.mark.parametrize(("steps", "moved"), [(2, {"codec"}), (4, {"codec", "unet", "text_encoder"})])
def test_codec_and_unet_learn_by_it_in_turn(steps: int, moved: set[str], tmp_path: Path) -> None:
    kind = {"codec": "autoencoder_kl", "codec_config": TINY_AUTOENCODER, "autoencoder_steps": 2}
    generator = tiny_generator(**kind, optimizer="muon")
    before = weights(generator)
    fit(generator, tmp_path, max_steps=steps, max_epochs=-1)
    assert {name.split(".")[1] for name in changed(before, weights(generator))} == moved


def test_mixed_precision(tmp_path: Path) -> None:
    generator = fit(tiny_generator(optimizer="muon"), tmp_path, precision="bf16-mixed", gradient_clip_val=1.0)
    assert all(bool(tensor.isfinite().all()) for tensor in generator.state_dict().values())
