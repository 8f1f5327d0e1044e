from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open

from synfer.export.exporter import ExportSettings
from synfer.export.lora import LoRAExporter
from tests.fixtures.exported import generator_of, our_latents, request, save_pipeline, stock_pipeline, their_latents
from tests.fixtures.tiny_generator import tiny_generator

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("alpha", [None, 10.0])
def test_diffusers_makes_the_same_latents_with_it(alpha: float | None, base: Path, tmp_path: Path) -> None:
    generator = generator_of(base, alpha=alpha)
    LoRAExporter().export(generator, tmp_path)
    asked = request(au_scale=0.0)  # the adapter is another export
    ours = our_latents(generator, asked)
    pipe = stock_pipeline(base)
    without = their_latents(pipe, asked)
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(their_latents(pipe, asked), ours, atol=1e-4, rtol=0)
    assert (without - ours).abs().max() > 0.05


def test_layers_that_diffusers_has_no_names_for_are_not_lost(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base)
    unet = generator.model.unet
    unet.delete_adapters("default")
    unet.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "ff.net.0.proj", "conv1"]))
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape))
    LoRAExporter().export(generator, tmp_path)
    asked = request(au_scale=0.0)
    pipe = stock_pipeline(base)
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(their_latents(pipe, asked), our_latents(generator, asked), atol=1e-4, rtol=0)


def test_rank_and_alpha_are_in_the_file(base: Path, tmp_path: Path) -> None:
    LoRAExporter().export(generator_of(base, alpha=10.0), tmp_path)
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        said = json.loads(file.metadata()["lora_adapter_metadata"])
        names = list(file.keys())
    assert said["unet.r"] == 4 and said["unet.lora_alpha"] == 10.0
    assert sorted(said["unet.target_modules"]) == ["to_k", "to_out.0", "to_q", "to_v"]
    assert all(name.startswith("unet.") and ".lora_" in name for name in names)
    assert not any("_ip" in name or "encoder_hid_proj" in name for name in names)


def test_what_is_exported_is_loaded_again(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base, alpha=10.0)
    LoRAExporter().export(generator, tmp_path)
    loaded = LoRAExporter().load(tmp_path)
    assert set(loaded.scaling.values()) == {2.5}
    own = generator.model.unet.state_dict()
    assert len(loaded.up) == sum(".lora_B." in name for name in own)
    for name, tensor in loaded.up.items():
        assert torch.equal(tensor, own[f"{name}.lora_B.default.weight"])


def test_a_generator_that_starts_from_the_export_makes_the_same_faces(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base, alpha=10.0)
    LoRAExporter().export(generator, tmp_path)
    again = tiny_generator(base=str(base), trained="lora", lora_weights=str(tmp_path))
    asked = request(au_scale=0.0)
    torch.testing.assert_close(our_latents(again, asked), our_latents(generator, asked), atol=1e-4, rtol=0)


def test_half_precision(base: Path, tmp_path: Path) -> None:
    LoRAExporter(ExportSettings("bfloat16")).export(generator_of(base), tmp_path)
    assert {tensor.dtype for tensor in LoRAExporter().load(tmp_path).down.values()} == {torch.bfloat16}


def test_the_trained_noise_schedule_is_beside_it(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base, network=network({"prediction_type": "v_prediction"}))
    LoRAExporter().export(generator, tmp_path)
    said = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert said["prediction_type"] == "v_prediction" and said["clip_sample"] is False


def network(scheduler: dict[str, Any]) -> Any:
    from synfer.networks.network_settings import NetworkSettings

    return NetworkSettings(scheduler=scheduler)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trained": "adapter"}, "lora: found model.trained 'adapter', which has none, expected 'lora'"),
        ({"trained": "all"}, "lora: found model.trained 'all', so the UNet is no longer that of"),
        ({"base": None}, "lora: found a small generator .model.base null., expected one made from a base"),
    ],
)
def test_what_has_no_lora_is_refused(changes: dict[str, Any], said: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        LoRAExporter().export(tiny_generator(**{"base": str(base), **changes}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_the_format_are_refused(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base)
    with torch.no_grad():
        next(p for name, p in generator.model.unet.named_parameters() if "lora_B" in name).fill_(1e6)
    with pytest.raises(ValueError, match=r"lora: 1 weights are not finite in float16, 'unet\..*lora_B"):
        LoRAExporter(ExportSettings("float16")).export(generator, tmp_path)
