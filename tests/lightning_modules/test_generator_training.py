"""What a generator's training can be asked for beside its plain loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.prediction import offset_noise
from tests.fixtures.tiny_generator import SIDE, request_for, save_base, save_checkpoint, tiny_generator
from tests.lightning_modules.test_generator import UnetInputs, batch_of, fit, make_trainer, tiny_data, weights


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_base(tmp_path_factory.mktemp("base")))


# ---------------------------------------------------------------- LoRA


def lora_layers(generator: Any) -> dict[str, Any]:
    return {name: m for name, m in generator.model.unet.named_modules() if hasattr(m, "lora_A")}


@pytest.mark.parametrize(("alpha", "scaling"), [(None, 1.0), (8.0, 2.0), (1.0, 0.25)])
def test_alpha_over_rank_scales_the_update(alpha: float | None, scaling: float, base: str) -> None:
    layers = lora_layers(tiny_generator(base=base, trained="lora", lora_rank=4, lora_alpha=alpha))
    assert layers and {layer.scaling["default"] for layer in layers.values()} == {scaling}
    assert {name.rpartition("attn")[2][2:] for name in layers} == {"to_q", "to_k", "to_v", "to_out.0"}


def test_other_layers_may_be_chosen(base: str) -> None:
    layers = lora_layers(tiny_generator(base=base, trained="lora_only", lora_targets=["to_q", "ff.net.2"]))
    assert {name.endswith(("to_q", "ff.net.2")) for name in layers} == {True}
    assert any(name.endswith("ff.net.2") for name in layers)
    beside_adapter = lora_layers(tiny_generator(base=base, trained="lora", lora_targets=["to_q", "ff.net.2"]))
    assert set(beside_adapter) == set(layers), "the AU adapter has a layer of such a name, which learns as it is"
    with pytest.raises(ValueError, match=r"model.lora_targets: found 'to_x', expected ends of names"):
        tiny_generator(base=base, trained="lora", lora_targets=["to_q", "to_x"])


def test_what_learns_is_float32_whatever_the_base(base: str) -> None:
    generator = tiny_generator(base=base, trained="adapter")
    generator.model.unet.bfloat16()
    for part in ("lora_only", "all"):
        generator.model.choose_trained(part, 4)
        assert {p.dtype for p in generator.model.unet.parameters() if p.requires_grad} == {torch.float32}


def test_without_an_adapter_action_units_are_not_heard(base: str) -> None:
    generator = tiny_generator(base=base, trained="lora_only")
    faces = generator.synthesise(request_for(au_scale=1.0)).images
    assert torch.equal(faces, generator.synthesise(request_for(au_scale=0.0)).images)


def test_an_adapter_of_low_rank_learns_little_and_comes_back_from_files(base: str, tmp_path: Path) -> None:
    settings = {"base": base, "trained": "adapter", "ema_decay": None}
    fitted = fit(tiny_generator(**settings, au_rank=2), tmp_path)
    whole = tiny_generator(**settings)
    sizes = [sum(p.numel() for p in g.parameters() if p.requires_grad) for g in (fitted, whole)]
    assert sizes[0] < sizes[1]
    fresh = tiny_generator(**settings, au_rank=2)
    layers = {name for name, p in fresh.model.unet.named_parameters() if ".parametrizations.weight.0." in name}
    before, after = fresh.state_dict(), fitted.state_dict()
    assert layers and not any(torch.equal(before[f"model.unet.{n}"], after[f"model.unet.{n}"]) for n in layers)

    fitted.trainer.save_checkpoint(tmp_path / "low.ckpt")
    stored = torch.load(tmp_path / "low.ckpt", weights_only=True)["state_dict"]
    assert not any(name.endswith(".original") for name in stored)
    expected = fitted.eval().synthesise(request_for()).images
    loaded = ExpressionGenerator.load_trained(tmp_path / "low.ckpt")
    assert torch.equal(loaded.synthesise(request_for()).images, expected)
    with pytest.raises(ValueError, match=r"model.au_rank: found 0, expected at least 1"):
        tiny_generator(**settings, au_rank=0)
    with pytest.raises(ValueError, match=r"model.au_rank: found 2, expected null without .* 'adapter' or 'lora'"):
        tiny_generator(base=base, trained="lora_only", au_rank=2)


# ---------------------------------------------------------------- noise and losses


def test_an_offset_moves_whole_channels() -> None:
    def draw(share: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        eps = torch.randn(64, 4, 8, 8, generator=generator)
        return offset_noise(eps, share, generator)

    plain, offset = draw(0.0), draw(0.5)
    moved = offset - plain
    assert torch.allclose(moved, moved[..., :1, :1].expand_as(moved), atol=1e-6)
    assert float(moved[..., 0, 0].std()) == pytest.approx(0.5, rel=0.1)


def test_an_offset_reaches_input_and_target(base: str) -> None:
    seen = []
    for share in (0.0, 0.4):
        generator = tiny_generator(base=base, trained="lora", noise_offset=share)
        given: list[torch.Tensor] = []
        network = generator.network

        def noted(latents: torch.Tensor, *rest: Any, network: Any = network, given: Any = given) -> torch.Tensor:
            given.append(latents)
            return network(latents, *rest)

        generator.network = noted  # type: ignore[method-assign]
        text, au = generator._conditions(batch_of(), None)
        residual, _ = generator._residual(torch.zeros(8, 4, SIDE // 2, SIDE // 2), text, au, drawn())
        seen.append((given[0], residual))
    moved = seen[1][0] - seen[0][0]
    assert float(moved.abs().amax()) > 0.01
    assert torch.allclose(moved, moved[..., :1, :1].expand_as(moved), atol=1e-5)
    assert not torch.allclose(seen[0][1], seen[1][1], atol=0.01)


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_noise_levels_are_drawn_as_asked_in_training_and_alike_in_validation(tmp_path: Path) -> None:
    seen = []
    for timesteps in ({}, {"kind": "log_normal", "mean": -4.0, "std": 0.5, "uniform_share": 0.0}):
        generator = tiny_generator(timesteps=timesteps)
        inputs = UnetInputs(generator)
        fit(generator, tmp_path)
        seen.append(torch.cat(inputs.timesteps))
        inputs.timesteps.clear()
        make_trainer(tmp_path, limit_val_batches=1.0).validate(generator, datamodule=tiny_data(), verbose=False)
        seen.append(torch.cat(inputs.timesteps))
    assert int(seen[0].max()) > 500 > 100 > int(seen[2].max())
    assert torch.equal(seen[1], seen[3])


def test_the_draw_of_noise_levels_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    given = {"kind": "logit_normal", "mean": 0.5, "std": None, "uniform_share": 0.2, "stratified": True}
    path = save_checkpoint(tiny_generator(timesteps=given), tmp_path / "x.ckpt")
    assert torch.load(path, weights_only=True)["hyper_parameters"]["timesteps"] == given
    assert ExpressionGenerator.load_trained(path).hparams["timesteps"] == given


def test_distribution_matching_is_added_with_its_weight(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, logged = {}, {}
    for weight in (0.0, 0.19, 0.38):
        generator = tiny_generator(base=base, trained="lora", distribution_matching=weight)
        monkeypatch.setattr(generator, "log", lambda name, value, **_: logged.__setitem__(name, float(value.detach())))
        found[weight] = float(generator.training_step(batch_of(), 0).detach())
        assert ("train/distribution_loss" in logged) == (weight > 0)
    assert logged["train/loss"] == found[0.0]
    assert logged["train/distribution_loss"] > 0 and logged["train/distribution_ratio"] > 0
    assert found[0.19] - found[0.0] == pytest.approx(0.19 * logged["train/distribution_loss"], rel=1e-3)
    assert found[0.38] - found[0.0] == pytest.approx(0.38 * logged["train/distribution_loss"], rel=1e-3)


# ---------------------------------------------------------------- cost


def test_checkpointing_trains_the_same_weights(base: str, tmp_path: Path) -> None:
    made = []
    for enabled in (False, True):
        execution = {"gradient_checkpointing": enabled, "bf16_sampling": False}
        made.append(weights(fit(tiny_generator(base=base, trained="lora", execution=execution), tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(made[0].values(), made[1].values(), strict=True))


@pytest.mark.parametrize("trained", ["lora", "adapter", "lora_only"])
def test_average_and_its_backup_hold_what_learns_alone(trained: str, base: str, tmp_path: Path) -> None:
    generator = fit(tiny_generator(base=base, trained=trained, ema_decay=0.9), tmp_path)
    assert generator.ema is not None
    learns = sum(p.numel() for p in generator.parameters() if p.requires_grad)
    assert sum(t.numel() for t in generator.ema.average.values()) == learns
    with generator.ema.swapped():
        assert sum(t.numel() for t in generator.ema.backup.values()) == learns
    assert learns < 0.5 * sum(p.numel() for p in generator.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_one_optimiser_pass_over_the_tensors_of_a_base(precision: Any, base: str, tmp_path: Path) -> None:
    generator = fit(tiny_generator(base=base, trained="lora"), tmp_path, gradient_clip_val=1.0, precision=precision)
    assert generator.trainer.optimizers[0].defaults["fused"] is True
    assert fit(tiny_generator(), tmp_path).trainer.optimizers[0].defaults["fused"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": 0}, r"model.lora_rank: found 0, expected at least 1"),
        ({"lora_alpha": 0.0}, r"model.lora_alpha: found 0.0, expected a number above 0 or null"),
        (
            {"au_rank": 4},
            r"model.au_rank: found 4, expected null without model.base and model.trained 'adapter' or 'lora'",
        ),
        ({"noise_offset": -0.1}, r"model.noise_offset: found -0.1, expected at least 0"),
        ({"distribution_matching": -1.0}, r"model.distribution_matching: found -1.0, expected at least 0"),
        ({"trained": "lora_only"}, r"model.trained: found 'lora_only' without model.base"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_generator(**changes)
