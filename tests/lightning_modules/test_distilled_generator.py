"""A student learns what its teacher gives in more passes, and makes faces in fewer."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_modules.distilled_generator import DistilledGenerator
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.generator_file import generator_arguments
from synfer.export.exporter import NothingToExportError
from synfer.export.lora import LoRAExporter
from synfer.networks.scale_input import hears_scale, scale_layer
from synfer.synthesis.request import SamplingSettings
from tests.fixtures.tiny_generator import (
    request_for,
    save_base,
    save_checkpoint,
    scaled_weights,
    tiny_generator,
)
from tests.lightning_modules.test_generator import changed, fit, make_trainer, tiny_data, weights

FEW = SamplingSettings(num_steps=2, guidance_scale=2.0, scheduler="few_step")


def student(teacher: Any, few_steps: int | None = None, **changes: Any) -> DistilledGenerator:
    """Returns a student of a tiny generator."""
    like = dict(tiny_generator(**{k: v for k, v in changes.items() if k in ("base", "trained")}).hparams)
    like["network"] = {**like["network"], "largest_scale": 4.0, "few_steps": few_steps}
    if few_steps is not None:
        like["sampling"] = asdict(replace(FEW, num_steps=few_steps))
    path = None if teacher is None else str(teacher)
    torch.manual_seed(1)
    return DistilledGenerator(teacher=path, **{**generator_arguments(like), "min_snr_gamma": None, **changes})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator that hears the text well."""
    return save_checkpoint(scaled_weights(tiny_generator()), tmp_path_factory.mktemp("teacher") / "teacher.ckpt")


@pytest.fixture(scope="module")
def distilled(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of its guidance, after some steps."""
    folder = tmp_path_factory.mktemp("distilled")
    fitted = fit(student(teacher, learning_rate=3e-3, weight_decay=0.0), folder, max_epochs=20)
    fitted.trainer.save_checkpoint(folder / "distilled.ckpt")
    return folder / "distilled.ckpt"


def passes(generator: ExpressionGenerator, **settings: Any) -> int:
    """Returns how many faces go through the UNet for each face of a request of three."""
    count = 0

    def hear(module: Any, arguments: Any, output: Any) -> None:
        nonlocal count
        count += len(arguments[0])

    handle = generator.model.unet.register_forward_hook(hear)
    generator.synthesise(request_for(["happy", "sad", "neutral"], **settings))
    handle.remove()
    return count // 3


def guided_error(generator: ExpressionGenerator, teacher: ExpressionGenerator) -> float:
    """Returns how far one pass is from the teacher's guided output, relative to the effect of guidance."""
    state = teacher.synthesiser.start(request_for(["happy", "sad"] * 8, num_steps=4))
    n, error, effect = len(state.latents), 0.0, 0.0
    with torch.no_grad():
        for timestep, scale in ((600, 2.0), (300, 4.0)):
            text, null = (tokens.repeat(1, 1, 1) for tokens in (state.text, state.null_text))
            conditional = state.network(state.latents, timestep, text, state.au)
            unconditional = state.network(state.latents, timestep, null, state.null_au)
            wanted = unconditional + scale * (conditional - unconditional)
            own = generator.synthesiser.start(request_for(["happy", "sad"] * 8, num_steps=4))
            found = own.network(state.latents, timestep, own.text, own.au, torch.full((n,), scale))
            error += float((found - wanted).square().mean())
            effect += float((conditional - wanted).square().mean())
    return error / effect


def test_it_learns_the_guided_output(teacher: Path, distilled: Path) -> None:
    taught = ExpressionGenerator.load_trained(teacher)
    begun = student(teacher)
    begun.load_state_dict({**begun.state_dict(), **taught.state_dict()})
    assert guided_error(begun.eval(), taught) == pytest.approx(1, abs=1e-3)  # it begins unguided
    assert guided_error(ExpressionGenerator.load_trained(distilled), taught) < 0.4


def test_a_guided_step_is_one_pass(teacher: Path, distilled: Path) -> None:
    settings = {"num_steps": 4, "guidance_scale": 3.0}
    assert passes(ExpressionGenerator.load_trained(teacher), **settings) == 8
    assert passes(ExpressionGenerator.load_trained(distilled), **settings) == 4


def test_it_begins_with_the_teacher_and_leaves_text_encoder_and_codec(teacher: Path, tmp_path: Path) -> None:
    taught = ExpressionGenerator.load_trained(teacher)
    fitted = fit(student(teacher, learning_rate=1e-4), tmp_path, max_steps=1)
    assert fitted.weights_source is not None and fitted.weights_source["path"] == str(teacher)
    before = {**weights(fitted), **weights(taught)}
    before["model.unet.time_embedding.cond_proj.weight"] = torch.zeros_like(scale_layer(fitted.model.unet).weight)
    now = weights(fitted)
    names = changed(before, now)
    assert names and all(name.startswith("model.unet.") for name in names)
    assert max(float((now[name] - before[name]).abs().max()) for name in names) < 1e-3  # near to it after one step
    assert not any("teacher" in name for name in now)


def test_few_steps_follow_many(distilled: Path, tmp_path: Path) -> None:
    def error_after(epochs: int) -> tuple[DistilledGenerator, float]:
        made = student(distilled, few_steps=2, substeps=3, learning_rate=3e-3, weight_decay=0.0)
        fitted = fit(made, tmp_path, max_epochs=epochs, limit_val_batches=1.0, check_val_every_n_epoch=epochs)
        return fitted, float(fitted.trainer.callback_metrics["val/loss"])

    fitted, error = error_after(20)
    assert error < 0.8 * error_after(1)[1]
    fitted.trainer.save_checkpoint(tmp_path / "few.ckpt")
    few = ExpressionGenerator.load_trained(tmp_path / "few.ckpt")
    assert passes(few, **asdict(FEW)) == 2
    few.save_trained(tmp_path / "trained")
    again = ExpressionGenerator.load_trained(tmp_path / "trained")
    made, remade = (each.synthesise(request_for(**asdict(FEW))).images.float() for each in (few, again))
    assert (made - remade).abs().mean() < 1  # float16


def test_guidance_through_text_and_latents_works_on_it(distilled: Path) -> None:
    """Every row that a hook computes is a guided one already."""
    from synfer.synthesis.diffusion.guidance import guidance_step, latent_guidance_step

    generator = ExpressionGenerator.load_trained(distilled)
    state = generator.synthesiser.start(request_for(["happy", "sad"], guidance_scale=3.0))
    assert state.hears_scale
    torch.manual_seed(0)
    head = torch.nn.Linear(3 * state.image_size**2, 3)

    def guide(images: torch.Tensor) -> torch.Tensor:
        return head(images.flatten(1))

    label = torch.tensor([1, 2])
    by_text = guidance_step(state, guide, label)
    with torch.no_grad():
        torch.testing.assert_close(by_text.output, state.predict(state.text, state.au))
    assert float(by_text.gradient.abs().max()) > 0
    state.output = by_text.output
    assert float(latent_guidance_step(state, guide, label).gradient.abs().max()) > 0


def test_a_training_goes_on_where_it_stopped(teacher: Path, tmp_path: Path) -> None:
    kept = [ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)]
    whole = fit(student(teacher), tmp_path, max_epochs=2, callbacks=kept)
    rest = fit(student(teacher), tmp_path, tmp_path / "epoch=0.ckpt", max_epochs=2)
    assert not changed(weights(whole), weights(rest))


@pytest.mark.parametrize("trained", ["lora", "lora_only"])
def test_the_lora_of_a_base(trained: str, tmp_path: Path) -> None:
    """The base's own weights stay out of the file; the layer that takes the scale is in it."""
    base = str(save_base(tmp_path / "base"))
    of_base = {"base": base, "trained": trained}
    first = save_checkpoint(tiny_generator(**of_base), tmp_path / "first.ckpt")
    fitted = fit(student(first, **of_base), tmp_path, max_steps=2)
    fitted.trainer.save_checkpoint(tmp_path / "distilled.ckpt")
    names = torch.load(tmp_path / "distilled.ckpt", weights_only=True)["state_dict"]
    assert "model.unet.time_embedding.cond_proj.weight" in names and not any(
        "down_blocks.0.resnets" in n for n in names
    )
    loaded = ExpressionGenerator.load_trained(tmp_path / "distilled.ckpt")
    assert hears_scale(loaded.model.unet) and passes(loaded, num_steps=3, guidance_scale=2.0) == 3
    with pytest.raises(NothingToExportError, match=r"lora: found model.network.largest_scale 4.0"):
        LoRAExporter().export(loaded, tmp_path / "export")


def test_a_base_by_itself_teaches_too(tmp_path: Path) -> None:
    base = str(save_base(tmp_path / "base"))
    fitted = fit(student(None, base=base, trained="lora_only"), tmp_path, max_steps=1)
    assert fitted.teacher.hparams["base"] == base


def refused(message: str, made: DistilledGenerator, folder: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_trainer(folder).fit(made, datamodule=tiny_data())


def test_who_cannot_teach_is_refused(teacher: Path, distilled: Path, tmp_path: Path) -> None:
    refused(r"model.teacher: found None, expected a checkpoint", student(None), tmp_path)
    refused(r"generator '.*gone.ckpt': no such file or folder", student(tmp_path / "gone.ckpt"), tmp_path)
    refused(r"is distilled already \(network.largest_scale 4.0\)", student(distilled), tmp_path)
    other = save_checkpoint(tiny_generator(label_space="basic7"), tmp_path / "other.ckpt")
    refused(r"model.teacher '.*other.ckpt': found model.label_space=", student(other), tmp_path)
    narrow = student(teacher)
    narrow.hparams["network"]["largest_scale"] = 2.0
    narrow = save_checkpoint(narrow, tmp_path / "narrow.ckpt")
    refused(r"hears scales up to 2: found model.network.largest_scale 4", student(narrow, few_steps=2), tmp_path)
    two = save_checkpoint(student(teacher, few_steps=2), tmp_path / "two.ckpt")
    refused(r"takes 2 steps: found few_steps 2 · substeps 2 = 4, expected 2", student(two, few_steps=2), tmp_path)


def test_settings_that_it_has_not_learned_are_refused(teacher: Path, distilled: Path) -> None:
    generator = ExpressionGenerator.load_trained(distilled)

    def refuse(generator: ExpressionGenerator, message: str, **settings: Any) -> None:
        with pytest.raises(ValueError, match=message):
            generator.synthesise(request_for(["happy"], **settings))

    refuse(generator, r"sampling.guidance_scale: found 5.0, expected 1 … 4, which", guidance_scale=5.0)
    refuse(generator, r"sampling.negative_prompt: found 'blurred', expected none", negative_prompt="blurred")
    few = student(teacher, few_steps=2)
    refuse(few, r"sampling.scheduler: found ddim, expected few_step", num_steps=2)
    refuse(few, r"sampling.num_steps: found 4, expected 2, as", num_steps=4, scheduler="few_step")
    with pytest.raises(ValueError, match=r"model.sampling.num_steps: found 3, expected 2"):
        student(teacher, few_steps=2, sampling=replace(FEW, num_steps=3))
    with pytest.raises(ValueError, match=r"model.network.largest_scale: found None, expected a number above 1"):
        DistilledGenerator(label_space="basic7")
