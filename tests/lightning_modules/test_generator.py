from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from lightning_modules.generator import ExpressionGenerator
from synfer.faces.action_units import ACTION_UNITS, FACS_PROTOTYPES
from synfer.networks.au_adapter import au_adapter_parameters, embed_action_units
from synfer.synthesis.diffusion.prediction import min_snr_weight, signal_and_noise
from synfer.synthesis.over_ranks import synthesise_over_ranks
from synfer.synthesis.request import SamplingSettings, SynthesisRequest
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    TINY_AUTOENCODER,
    request_for,
    save_base,
    save_checkpoint,
    scaled_weights,
    tiny_classifier,
    tiny_generator,
)


def tiny_data(rows: int = 24, label_space: tuple[str, ...] = NAMES, **changes: Any) -> ExpressionDataModule:
    sizes = {"train": rows, "val": 8, "test": 12}
    tables = {split: tiny_table(n, split, SIDE, label_space=label_space) for split, n in sizes.items()}
    settings = {"batch_size": 8, "eval_batch_size": 8, "seed": 0, "augmentation": Augmentation(enabled=False)}
    return ExpressionDataModule(TinyReader(**tables), **{**settings, **changes})


def make_trainer(folder: Path, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": "callbacks" in changes
        and any(isinstance(c, ModelCheckpoint) for c in changes["callbacks"]),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**settings, **changes})


def fit(
    generator: ExpressionGenerator, folder: Path, ckpt_path: Path | None = None, **changes: Any
) -> ExpressionGenerator:
    make_trainer(folder, **changes).fit(generator, datamodule=tiny_data(), ckpt_path=ckpt_path)
    return generator


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def batch_of(n: int = 8, known_au: bool = True) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % len(NAMES)
    au = torch.rand(n, len(ACTION_UNITS), generator=generator)
    return {
        "image": torch.rand(n, 3, SIDE, SIDE, generator=generator),
        "label": label,
        "soft_label": torch.nn.functional.one_hot(label, len(NAMES)).float(),
        "au": au if known_au else torch.full_like(au, torch.nan),
        "caption": [f"a photo of a person with a {NAMES[k]} face" for k in label.tolist()],
        "is_synthetic": torch.zeros(n, dtype=torch.bool),
        "sample_id": [f"row-{i}" for i in range(n)],
    }


class UnetInputs:
    """Notes what the UNet is given."""

    def __init__(self, generator: ExpressionGenerator) -> None:
        self.latents: list[torch.Tensor] = []
        self.timesteps: list[torch.Tensor] = []
        generator.model.unet.register_forward_pre_hook(self._note)

    def _note(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        self.latents.append(inputs[0].detach().clone())
        self.timesteps.append(torch.as_tensor(inputs[1]).clone())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_base(tmp_path_factory.mktemp("base")))


# ---------------------------------------------------------------- training


def test_a_fit_lowers_the_validation_loss(tmp_path: Path) -> None:
    generator = tiny_generator(learning_rate=5e-3)
    trainer = make_trainer(tmp_path, max_epochs=12, limit_val_batches=1.0)
    before = trainer.validate(generator, datamodule=tiny_data(), verbose=False)[0]["val/loss"]
    trainer.fit(generator, datamodule=tiny_data())
    assert trainer.callback_metrics["val/loss"] < 0.95 * before
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_validation_draws_the_same_noise_every_time(tmp_path: Path) -> None:
    generator = tiny_generator()
    losses = []
    for seed in range(2):
        torch.manual_seed(seed)
        trainer = make_trainer(tmp_path, limit_val_batches=1.0)
        losses.append(trainer.validate(generator, datamodule=tiny_data(), verbose=False)[0]["val/loss"])
    assert losses[0] == losses[1]


def test_noise_is_keyed_by_rank_step_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny_generator()
    seen = UnetInputs(generator)
    batch = batch_of()

    def draw(rank: int, step: int, batch_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(ExpressionGenerator, "global_rank", property(lambda self: rank))
        monkeypatch.setattr(ExpressionGenerator, "global_step", property(lambda self: step))
        generator.training_step(batch, batch_idx)
        return seen.latents[-1], seen.timesteps[-1]

    first, again = draw(0, 3, 3), draw(0, 3, 3)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    # The last case: two batches of one step, where gradients are accumulated.
    for other in (draw(1, 3, 3), draw(0, 4, 3), draw(0, 3, 4)):
        assert not torch.equal(first[1], other[1])
        assert (first[0] - other[0]).abs().amax() > 0.1


def test_noise_follows_the_seed_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny_generator()
    seen = UnetInputs(generator)
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        generator.training_step(batch_of(), 0)
    assert torch.equal(seen.latents[0], seen.latents[1])
    assert not torch.equal(seen.latents[0], seen.latents[2])


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("gamma", [5.0, None])
def test_loss_is_weighted_by_min_snr(prediction: Any, gamma: float | None) -> None:
    schedule = {"prediction_type": prediction, "rescale_betas_zero_snr": False}
    generator = tiny_generator(scheduler=schedule, min_snr_gamma=gamma)
    generator.network = lambda latents, timestep, text, au: torch.zeros_like(latents)  # type: ignore[method-assign]
    latents = torch.randn(16, 48, 4, 4)
    loss = generator._loss(latents, torch.empty(0), torch.empty(0), torch.Generator().manual_seed(7))
    same = torch.Generator().manual_seed(7)
    timestep = torch.randint(1000, (16,), generator=same)
    eps = torch.randn(latents.shape, generator=same)
    scheduler = generator.model.scheduler
    target = eps if prediction == "epsilon" else scheduler.get_velocity(latents, eps, timestep)
    weight = min_snr_weight(*signal_and_noise(scheduler.alphas_cumprod, timestep, latents), gamma, prediction)
    torch.testing.assert_close(loss, (weight * target**2).mean())
    assert gamma is None or not torch.allclose(loss, (target**2).mean(), rtol=0.05)


def test_accumulated_batches_have_noise_of_their_own_and_one_average_update(tmp_path: Path) -> None:
    generator = tiny_generator(ema_decay=0.9)
    seen = UnetInputs(generator)
    trainer = make_trainer(tmp_path, max_epochs=2, accumulate_grad_batches=3)
    trainer.fit(generator, datamodule=tiny_data())
    assert len(seen.timesteps) == 6 and trainer.global_step == 2
    assert len({tuple(t.tolist()) for t in seen.timesteps}) == 6
    assert generator.ema is not None and generator.ema.num_updates == 2


def test_same_seed_same_weights_and_a_resumed_run_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    def through(folder: str, epochs: int, resume: Path | None = None) -> ExpressionGenerator:
        checkpoint = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1)
        generator = tiny_generator(ema_decay=0.9)
        trainer = make_trainer(tmp_path, max_epochs=epochs, callbacks=[checkpoint])
        if resume is None:
            torch.manual_seed(epochs)  # the global generator plays no part in training
        trainer.fit(generator, datamodule=tiny_data(), ckpt_path=resume)
        return generator

    whole = through("whole", 3)
    resumed = through("resumed", 3, tmp_path / "whole" / "epoch=0.ckpt")
    assert not changed(weights(whole), weights(resumed))
    assert whole.ema is not None and resumed.ema is not None
    assert whole.ema.num_updates == resumed.ema.num_updates == 9
    assert not changed(whole.ema.average, resumed.ema.average)


def test_a_step_uses_every_parameter_that_learns() -> None:
    generator = tiny_generator()  # DistributedDataParallel waits for ever for one that gets no gradient
    generator.training_step(batch_of(), 0).backward()
    assert not [name for name, p in generator.named_parameters() if p.requires_grad and p.grad is None]


# ---------------------------------------------------------------- conditions


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("dropped", "text_goes", "au_goes"),
    [("drop_text", True, False), ("drop_au", False, True), ("drop_both", True, True)],
)
@torch.no_grad()
def test_conditions_are_really_dropped(dropped: str, text_goes: bool, au_goes: bool) -> None:
    shares = {"drop_text": 0.0, "drop_au": 0.0, "drop_both": 0.0, dropped: 1.0}
    generator = tiny_generator(**shares)
    batch: Any = batch_of()
    full_text, full_au = generator._conditions(batch, None)
    text, au = generator._conditions(batch, drawn())
    nothing = generator.model.encode_text([""]).expand_as(full_text)
    torch.testing.assert_close(text, nothing if text_goes else full_text, atol=1e-6, rtol=0)
    torch.testing.assert_close(au, torch.zeros_like(au) if au_goes else full_au)
    assert (full_text - nothing).abs().amax() > 1e-3 and full_au.abs().amax() > 0.1


@torch.no_grad()
def test_null_caption_stands_for_none_in_training_and_in_sampling() -> None:
    generator = tiny_generator(drop_text=1.0, drop_au=0.0, drop_both=0.0, null_caption="a happy sad face")
    null = generator.model.encode_text(["a happy sad face"])
    assert (null - generator.model.encode_text([""])).abs().amax() > 1e-3
    text, _ = generator._conditions(batch_of(), drawn())
    torch.testing.assert_close(text, null.expand_as(text), atol=1e-6, rtol=0)
    request = SynthesisRequest.from_expressions(["happy"], [0], 0)
    for settings, expected in ((SamplingSettings(), null), (SamplingSettings(negative_prompt="sad"), None)):
        found = generator.synthesiser.start(replace(request, settings=settings)).null_text
        wanted = generator.model.encode_text(["sad"]) if expected is None else expected
        torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)


@torch.no_grad()
def test_shares_of_dropped_conditions_are_as_asked() -> None:
    generator = tiny_generator(drop_text=0.3, drop_au=0.2, drop_both=0.1)
    n = 6000
    batch: Any = batch_of(n)
    text, au = generator._conditions(batch, drawn())
    no_text = (text - generator.model.encode_text([""])).abs().amax((1, 2)) < 1e-6
    no_au = ~au.flatten(1).any(1)
    found = [float(x.float().mean()) for x in (no_text & ~no_au, no_au & ~no_text, no_text & no_au)]
    assert found == pytest.approx([0.3, 0.2, 0.1], abs=0.02)


@torch.no_grad()
def test_nothing_is_dropped_in_validation() -> None:
    generator = tiny_generator(drop_text=0.0, drop_au=0.0, drop_both=1.0)
    batch: Any = batch_of()
    text, au = generator._conditions(batch, None)
    torch.testing.assert_close(au, embed_action_units(batch["au"], generator.region_masks))
    torch.testing.assert_close(text[3], generator.model.encode_text([batch["caption"][3]])[0], atol=1e-6, rtol=0)


def test_action_units_come_from_the_prototype_where_none_is_known() -> None:
    generator = tiny_generator()
    batch: Any = batch_of(6)
    known = batch["au"].clone()
    batch["au"][3:] = torch.nan
    batch["au"][1, 5:] = torch.nan  # some known: left alone
    filled = generator._fill_action_units(batch)
    assert torch.equal(filled[0], known[0]) and torch.equal(filled[2], known[2])
    assert torch.equal(filled[1, :5], known[1, :5]) and filled[1, 5:].isnan().all()
    for row in (3, 4, 5):
        prototype = FACS_PROTOTYPES[NAMES[int(batch["label"][row])]]
        acting = {ACTION_UNITS[i] for i in filled[row].nonzero().flatten().tolist()}
        assert set(prototype.core) <= acting <= {*prototype.core, *prototype.often}
    assert batch["au"][3:].isnan().all()  # the batch itself stays as it came


def test_drawn_action_units_are_keyed_by_sample_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny_generator()
    batch: Any = batch_of(6, known_au=False)
    reverse: Any = {
        key: value.flip(0) if isinstance(value, torch.Tensor) else value[::-1] for key, value in batch.items()
    }
    first = generator._fill_action_units(batch)
    assert torch.equal(first, generator._fill_action_units(reverse).flip(0))
    monkeypatch.setattr(ExpressionGenerator, "global_step", property(lambda self: 5))
    later = generator._fill_action_units(batch)
    assert not torch.equal(first[1], later[1])
    assert torch.equal(generator.eval()._fill_action_units(batch), first)  # validation: the same in every epoch


# ---------------------------------------------------------------- averaged weights


class InsideValidation(Callback):
    """Notes the weights that a validation sees."""

    def __init__(self) -> None:
        self.seen: dict[str, torch.Tensor] = {}

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen = weights(pl_module.model)


def test_validation_sees_the_averaged_weights_and_training_goes_on_with_its_own(tmp_path: Path) -> None:
    generator, inside = tiny_generator(ema_decay=0.9), InsideValidation()
    fit(generator, tmp_path, max_epochs=2, limit_val_batches=1, callbacks=[inside])
    ema = generator.ema
    assert ema is not None and not ema.is_swapped
    assert all(torch.equal(inside.seen[name], tensor) for name, tensor in ema.average.items())
    raw = weights(generator.model)
    assert sum(not torch.equal(raw[name], tensor) for name, tensor in ema.average.items()) > 0.9 * len(ema.average)


def test_a_checkpoint_written_after_validation_holds_the_weights_of_training(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="inside", save_on_train_epoch_end=False)
    generator = tiny_generator(ema_decay=0.9)
    fit(generator, tmp_path, limit_val_batches=1, callbacks=[checkpoint])
    stored = torch.load(tmp_path / "inside.ckpt", weights_only=True)
    assert not changed(stored["state_dict"], weights(generator))


def test_loaded_generator_has_the_averaged_weights(tmp_path: Path) -> None:
    generator = fit(tiny_generator(ema_decay=0.9), tmp_path, max_epochs=2)
    loaded = ExpressionGenerator.load_trained(save_checkpoint(generator, tmp_path / "x.ckpt"))
    assert generator.ema is not None and generator.ema.average
    found = weights(loaded.model)
    assert all(torch.equal(found[name], tensor) for name, tensor in generator.ema.average.items())
    assert loaded.ema is None and not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert loaded.sampling == generator.sampling and loaded.label_space == generator.label_space


# ---------------------------------------------------------------- checkpoints and folders


def test_a_checkpoint_holds_plain_types_and_gives_the_same_faces(tmp_path: Path) -> None:
    generator = fit(tiny_generator(), tmp_path)
    path = save_checkpoint(generator, tmp_path / "x.ckpt")
    stored = torch.load(path, weights_only=True)
    assert json.loads(json.dumps(stored["hyper_parameters"]))["sampling"]["num_steps"] == 4
    loaded = ExpressionGenerator.load_trained(str(path))
    assert loaded.weights_fingerprint() == generator.weights_fingerprint()
    assert torch.equal(loaded.synthesise(request_for()).images, generator.synthesise(request_for()).images)


def test_a_saved_folder_gives_nearly_the_same_faces(tmp_path: Path) -> None:
    generator = fit(tiny_generator(ema_decay=0.9), tmp_path)
    before = weights(generator)
    generator.save_trained(tmp_path / "saved")
    assert not changed(before, weights(generator))
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"model.safetensors", "config.json"}
    loaded = ExpressionGenerator.load_trained(tmp_path / "saved")
    assert generator.ema is not None
    generator.ema.apply()
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    for name, tensor in weights(generator).items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    a, b = (g.synthesise(request_for()).images.int() for g in (generator, loaded))
    assert (a - b).abs().float().mean() < 1


def test_paths_that_hold_no_generator(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.ckpt': no such file or folder"):
        ExpressionGenerator.load_trained(tmp_path / "nowhere.ckpt")
    with pytest.raises(ValueError, match=r"found no config.json"):
        ExpressionGenerator.load_trained(tmp_path)
    (tmp_path / "noise.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"noise.ckpt cannot be read"):
        ExpressionGenerator.load_trained(tmp_path / "noise.ckpt")
    save_checkpoint(tiny_classifier(), tmp_path / "classifier.ckpt")
    with pytest.raises(ValueError, match="expected one of an ExpressionGenerator"):
        ExpressionGenerator.load_trained(tmp_path / "classifier.ckpt")


# ---------------------------------------------------------------- on a base


def frozen_parts(name: str) -> bool:
    return name.startswith(("model.text_encoder.", "model.codec."))


IS_TRAINED: dict[str, Callable[[str], bool]] = {
    "all": lambda name: not frozen_parts(name),
    "adapter": lambda name: "_ip." in name or "encoder_hid_proj" in name,
    "lora": lambda name: "_ip." in name or "encoder_hid_proj" in name or "lora_" in name,
    "unet_only": lambda name: not frozen_parts(name),
    "lora_only": lambda name: "lora_" in name,
}


@pytest.mark.parametrize("trained", list(IS_TRAINED))
def test_on_a_base_only_what_is_chosen_learns_and_is_saved(trained: Any, base: str, tmp_path: Path) -> None:
    generator = tiny_generator(base=base, trained=trained, ema_decay=0.9)
    before = weights(generator)
    fit(generator, tmp_path, max_epochs=2)
    assert generator.model.unet.training and not generator.model.codec.autoencoder.training
    chosen = {name for name in before if IS_TRAINED[trained](name)}
    moved = changed(before, weights(generator))
    assert moved <= chosen and len(moved) > 0.9 * len(chosen)

    path = save_checkpoint(generator, tmp_path / "x.ckpt")
    stored = torch.load(path, weights_only=True)
    assert set(stored["state_dict"]) == chosen
    assert {f"model.{name}" for name in stored["ema"]["average"]} == chosen
    assert not any("text_encoder" in name or "codec" in name for name in stored["state_dict"])

    loaded = ExpressionGenerator.load_trained(path)
    assert generator.ema is not None
    generator.ema.apply()
    assert not changed(weights(generator), weights(loaded))
    assert torch.equal(loaded.synthesise(request_for()).images, generator.synthesise(request_for()).images)

    generator.save_trained(tmp_path / "saved")
    from_folder = ExpressionGenerator.load_trained(tmp_path / "saved")
    assert not {name for name in changed(weights(loaded), weights(from_folder)) if name not in chosen}


def test_sizes_of_what_learns(base: str) -> None:
    whole, lora, adapter = (tiny_generator(base=base, trained=kind) for kind in ("all", "lora", "adapter"))
    counts = [sum(p.numel() for p in g.parameters() if p.requires_grad) for g in (whole, lora, adapter)]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 3
    assert counts[2] == sum(p.numel() for p in au_adapter_parameters(adapter.model.unet))
    ranks = {p.shape[0] for name, p in lora.named_parameters() if "lora_A" in name}
    assert ranks == {4}
    for kind, with_adapter in (("unet_only", whole), ("lora_only", lora)):
        without = tiny_generator(base=base, trained=kind)
        found = sum(p.numel() for p in without.parameters() if p.requires_grad)
        assert found == sum(p.numel() for p in with_adapter.parameters() if p.requires_grad) - counts[2]
        assert not [name for name in without.state_dict() if IS_TRAINED["adapter"](name)]


def test_a_run_on_a_base_can_be_resumed(base: str, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = fit(tiny_generator(base=base, trained="lora"), tmp_path, max_epochs=2, callbacks=[checkpoint])
    again = tiny_generator(base=base, trained="lora")
    fit(again, tmp_path, max_epochs=2, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert not changed(weights(whole), weights(again))


def test_lora_starts_as_the_base_itself(base: str) -> None:
    plain, lora = tiny_generator(base=base, trained="adapter"), tiny_generator(base=base, trained="lora")
    adapters = dict(plain.model.unet.named_parameters())
    with torch.no_grad():
        for name, parameter in lora.model.unet.named_parameters():
            if IS_TRAINED["adapter"](name):
                parameter.copy_(adapters[name])
    assert torch.equal(plain.synthesise(request_for()).images, lora.synthesise(request_for()).images)


# ---------------------------------------------------------------- a codec that learns


def test_autoencoder_and_diffusion_model_learn_in_turn_in_one_fit(tmp_path: Path) -> None:
    class Snapshots(Callback):
        def __init__(self) -> None:
            self.at: list[dict[str, torch.Tensor]] = []
            self.logged: list[set[str]] = []

        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.at.append(weights(pl_module))

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.logged.append(set(trainer.logged_metrics))
            self.psnr = float(trainer.callback_metrics["train/autoencoder_psnr"])

    generator = tiny_generator(
        codec="autoencoder_kl", codec_config=TINY_AUTOENCODER, autoencoder_steps=3, learning_rate=1e-2
    )
    snapshots = Snapshots()
    fit(generator, tmp_path, max_epochs=2, callbacks=[snapshots])
    early = changed(snapshots.at[0], snapshots.at[3])
    late = changed(snapshots.at[3], weights(generator))
    assert early and all(name.startswith("model.codec.") for name in early)
    assert late and not any(name.startswith("model.codec.") for name in late)
    assert any(name.startswith("model.unet.") for name in late)
    assert any(name.startswith("model.text_encoder.") for name in late)
    assert "train/autoencoder_loss" in snapshots.logged[2] and "train/loss" in snapshots.logged[3]
    assert math.isfinite(snapshots.psnr)
    assert generator.synthesise(request_for()).images.shape == (3, 3, SIDE, SIDE)


def test_plain_ddp_is_refused_for_parts_that_learn_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"codec": "autoencoder_kl", "codec_config": TINY_AUTOENCODER, "autoencoder_steps": 3}
    in_turn, at_once = tiny_generator(**settings), tiny_generator()
    for options, is_refused in (({}, True), ({"find_unused_parameters": True}, False)):
        trainer: Any = SimpleNamespace(strategy=SimpleNamespace(_ddp_kwargs=options))
        monkeypatch.setattr(ExpressionGenerator, "trainer", trainer)
        at_once.setup("fit")
        if is_refused:
            with pytest.raises(ValueError, match=r"expected --trainer\.strategy=ddp_find_unused_parameters_true"):
                in_turn.setup("fit")
        else:
            in_turn.setup("fit")


# ---------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_text": 1.5}, r"model.drop.text: found 1.5, expected a share in \[0, 1\]"),
        ({"drop_text": 0.5, "drop_au": 0.4, "drop_both": 0.2}, r"model.drop: shares add up to 1.1"),
        ({"trained": "lora"}, r"model.trained: found 'lora' without model.base"),
        ({"codec": "autoencoder_kl"}, r"model.autoencoder_steps: found 0"),
        ({"min_snr_gamma": 0.0}, r"model.min_snr_gamma: found 0"),
        ({"label_space": "basic9"}, r"unknown label space 'basic9'"),
        ({"image_size": 18}, r"model.image_size: found 18"),
        ({"ema_decay": 1.0}, r"EMA decay: found 1"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_generator(**changes)


def test_settings_of_a_test_in_an_older_checkpoint_are_passed_over(tmp_path: Path) -> None:
    path = save_checkpoint(tiny_generator(), tmp_path / "old.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] |= {"judge": "gone.ckpt", "test_samples": 14, "nearest_training": None}
    torch.save(checkpoint, path)
    loaded = ExpressionGenerator.load_trained(path)
    assert "judge" not in loaded.hparams
    assert loaded.weights_fingerprint() == tiny_generator().weights_fingerprint()


def test_an_older_checkpoint_holds_its_settings_one_by_one(tmp_path: Path) -> None:
    """Before they stood in groups: the same network, shares and number format."""
    given = tiny_generator(scheduler={"beta_end": 0.5}, drop_au=0.25, compile_backend="eager")
    path = save_checkpoint(given, tmp_path / "old.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    stored = checkpoint["hyper_parameters"]
    flat = {**stored.pop("network"), **stored.pop("execution")}
    flat |= {f"drop_{name}": share for name, share in stored.pop("drop").items()}
    later = ("gradient_checkpointing", "lean_backward", "bf16_weights", "decode_batch", "largest_scale", "few_steps")
    for name in ("text_encoder", "channels_last", "drop_both", *later):
        del flat[name]  # older than these: their defaults
    checkpoint["hyper_parameters"] |= flat
    with pytest.raises(ValueError, match="hidden_size"):  # so what is stored is read
        torch.save(checkpoint, path)
        ExpressionGenerator.load_trained(path)
    checkpoint["hyper_parameters"]["text_encoder"] = given.hparams["network"]["text_encoder"]
    torch.save(checkpoint, path)
    loaded = ExpressionGenerator.load_trained(path)
    assert dict(loaded.hparams) == dict(given.hparams)
    assert loaded.weights_fingerprint() == given.weights_fingerprint()
    assert loaded.build_fingerprint() == given.build_fingerprint() != tiny_generator().build_fingerprint()


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.base '.*nowhere'"):
        tiny_generator(base=str(tmp_path / "nowhere"))


def test_data_of_another_label_space_are_refused(tmp_path: Path) -> None:
    data = tiny_data(label_space=("happy", "neutral", "sad"))
    with pytest.raises(ValueError, match=r"data has the label space \['happy', 'neutral', 'sad'\], the generator"):
        make_trainer(tmp_path).fit(tiny_generator(), datamodule=data)


def test_data_of_another_size_are_refused(tmp_path: Path) -> None:
    for stage in ("fit", "validate"):
        trainer = make_trainer(tmp_path, limit_val_batches=1)
        with pytest.raises(ValueError, match=r"model.image_size is 16, but the data has images of 24x24"):
            getattr(trainer, stage)(tiny_generator(), datamodule=tiny_data(image_size=24))


def test_image_size_must_fit_the_base(base: str) -> None:
    with pytest.raises(ValueError, match=r"model.image_size: found 17, expected a multiple of 2"):
        tiny_generator(base=base, image_size=17)


def test_requests_that_do_not_fit_are_refused() -> None:
    generator = tiny_generator()
    for scheduler in ("ddim", "dpm_solver++"):
        with pytest.raises(ValueError, match=r"sampling.num_steps: found 1001, expected at most 1000"):
            generator.synthesise(request_for(num_steps=1001, scheduler=scheduler))
    with pytest.raises(ValueError, match=r"cannot synthesise 'fear': the generator knows neutral, happy, sad"):
        generator.synthesise(request_for(["happy", "fear"]))
    units = np.zeros((1, 12), dtype=np.float32)
    with pytest.raises(ValueError, match=r"12 action units, the generator 41"):
        generator.synthesise(SynthesisRequest(("happy",), (0,), 0, ("a happy face",), units))


# ---------------------------------------------------------------- synthesis


@pytest.fixture(scope="module")
def speaking() -> ExpressionGenerator:
    return scaled_weights(tiny_generator()).eval()


def test_result_holds_what_was_asked(speaking: ExpressionGenerator) -> None:
    request = request_for(["sad", "happy", "sad"])
    result = speaking.synthesise(request)
    assert result.images.dtype == torch.uint8 and result.images.shape == (3, 3, SIDE, SIDE)
    assert result.images.float().std() > 5
    assert result.label.tolist() == [2, 1, 2]
    assert result.soft_label.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert result.kept.all() and result.layout_source == [""] * 3 and result.votes == {}
    assert result.request is request


@pytest.mark.parametrize("scheduler", ["ddim", "dpm_solver++"])
def test_a_sample_is_the_same_whatever_its_batch(scheduler: str, speaking: ExpressionGenerator) -> None:
    names = [NAMES[i % 3] for i in range(7)]
    request = request_for(names, seed=11, scheduler=scheduler)
    whole = speaking.synthesise(request).images.int()
    for size in (1, 2, 5):
        parts = [speaking.synthesise(request.part(i, i + size)).images for i in range(0, 7, size)]
        assert (torch.cat(parts).int() - whole).abs().amax() <= 1  # rounding of a pixel
    assert (whole[0] - whole[3]).abs().amax() > 10


def test_seed_and_sample_id_decide(speaking: ExpressionGenerator) -> None:
    first = speaking.synthesise(request_for(["happy"], first_id=5, seed=1)).images.int()
    torch.manual_seed(99)
    assert torch.equal(first, speaking.synthesise(request_for(["happy"], first_id=5, seed=1)).images.int())
    for other in (request_for(["happy"], first_id=6, seed=1), request_for(["happy"], first_id=5, seed=2)):
        assert (first - speaking.synthesise(other).images.int()).abs().float().mean() > 5


def test_text_and_action_units_both_speak(speaking: ExpressionGenerator) -> None:
    def faces(au_edits: dict[str, float] | None = None, name: str = "happy", **settings: Any) -> torch.Tensor:
        chosen = SamplingSettings(**{"num_steps": 4, **settings})
        request = SynthesisRequest.from_expressions([name], [0], 0, settings=chosen, au_edits=au_edits)
        return speaking.synthesise(request).images.int()

    opposite = {"AU12": 0.0, "AU6": 0.0, "AU4": 1.0, "AU15": 1.0}
    assert not torch.equal(faces(), faces(opposite))
    assert torch.equal(faces(au_scale=0.0), faces(opposite, au_scale=0.0))
    assert not torch.equal(faces(au_scale=0.0), faces(name="sad", au_scale=0.0))


def test_strength_of_the_action_units_does_not_stay_in_the_network(tmp_path: Path) -> None:
    quiet = SamplingSettings(num_steps=1, au_scale=0.0)
    weights_after = []
    for grids in (0, 1):
        generator = tiny_generator(sampling=quiet, grid_samples=grids)
        fit(generator, tmp_path / str(grids), max_epochs=2, limit_val_batches=1)
        weights_after.append(weights(generator))
    assert not changed(*weights_after)


def test_modes_are_restored_module_by_module_even_after_an_error(speaking: ExpressionGenerator) -> None:
    generator = tiny_generator().train()
    generator.model.text_encoder.eval()
    before = {name: module.training for name, module in generator.model.named_modules()}

    class Failing:
        def on_denoising_start(self, state: Any) -> None:
            assert not any(module.training for module in generator.model.modules())
            raise KeyError("a bug")

        def on_denoising_step(self, state: Any) -> None: ...

        def on_faces(self, faces: Any) -> None: ...

    generator.synthesise(request_for())
    assert {name: module.training for name, module in generator.model.named_modules()} == before
    with pytest.raises(KeyError):
        generator.synthesise(request_for(), [Failing()])
    assert {name: module.training for name, module in generator.model.named_modules()} == before


def with_a_broken_weight(**settings: Any) -> ExpressionGenerator:
    generator = tiny_generator(**settings)
    with torch.no_grad():
        generator.model.unet.conv_in.bias[0] = torch.nan
    return generator


def test_faces_that_are_not_finite_are_refused_and_the_weight_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"generated face 5 \(seed 3\) and 1 more of 2: found NaN or infinite pixels.*1 we"
    ):
        with_a_broken_weight().synthesise(request_for(["happy", "sad"], first_id=5, seed=3))


def test_a_broken_face_among_others_is_named(speaking: ExpressionGenerator) -> None:
    class Breaking:
        def on_denoising_start(self, state: Any) -> None:
            state.latents[1, 0, 0, 0] = torch.inf

        def on_denoising_step(self, state: Any) -> None: ...

        def on_faces(self, faces: Any) -> None: ...

    with pytest.raises(ValueError, match=r"generated face 6 \(seed 0\) and 0 more of 3.*overflow.*bf16_sampling=false"):
        speaking.synthesise(request_for(first_id=5), [Breaking()])


def test_no_grid_of_black_faces(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"generated face 0 \(seed 0\) at step 3 and 5 more of 6: found NaN"):
        fit(with_a_broken_weight(grid_samples=2), tmp_path, limit_val_batches=1)
    assert not list(tmp_path.rglob("*.png"))


def test_weights_that_float16_cannot_hold_are_not_saved(tmp_path: Path) -> None:
    generator = tiny_generator()
    with torch.no_grad():
        generator.model.unet.conv_in.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"1 weights are not finite in float16, 'model.unet.conv_in.bias' the first"):
        generator.save_trained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_large_request_is_made_in_batches_and_comes_back_in_order(speaking: ExpressionGenerator) -> None:
    names = [NAMES[i % 3] for i in range(5)]
    made = synthesise_over_ranks(speaking, request_for(names), [], batch_size=2)
    whole = speaking.synthesise(request_for(names))
    assert (made["images"].int() - whole.images.int()).abs().amax() <= 1
    assert torch.equal(made["label"], whole.label) and torch.equal(made["soft_label"], whole.soft_label)


def test_fingerprint_follows_the_weights() -> None:
    one, same, other = tiny_generator(), tiny_generator(), tiny_generator()
    with torch.no_grad():
        other.model.unet.conv_in.bias[0] += 1e-3
    assert one.weights_fingerprint() == same.weights_fingerprint() != other.weights_fingerprint()


def test_grid_has_a_row_per_expression_and_is_made_by_the_averaged_weights(tmp_path: Path) -> None:
    class Shown(CSVLogger):
        images: ClassVar[dict[str, list[str]]] = {}

        def log_image(self, key: str, images: list[str]) -> None:
            self.images[key] = images

    fit(tiny_generator(grid_samples=2, ema_decay=0.9), tmp_path, limit_val_batches=1, logger=Shown(tmp_path))
    (path,) = (tmp_path / "samples").glob("grid-step*.png")
    assert Shown.images == {"samples/grid": [str(path)]}
    width, height = Image.open(path).size
    assert path.name == "grid-step0000003.png"
    assert height == len(NAMES) * 96 and width == 110 + 2 * 96


def test_a_compiled_network_makes_the_same_faces_and_checkpoints() -> None:
    plain, compiled = tiny_generator(), tiny_generator(compile_backend="eager")
    assert set(compiled.state_dict()) == set(plain.state_dict())
    request = request_for(["happy", "sad"], num_steps=3)
    difference = compiled.synthesise(request).images.int() - plain.synthesise(request).images.int()
    assert difference.abs().max() <= 1
    with pytest.raises(ValueError, match=r"model.execution.compile_backend: found 'fast', expected null or one of"):
        tiny_generator(compile_backend="fast")
