"""Parts that do not learn may lie in half precision, in a training of any precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightning_modules.generator import ExpressionGenerator
from tests.fixtures import stable_diffusion_folder as sd
from tests.fixtures.tiny_generator import request_for, save_checkpoint, tiny_generator
from tests.fixtures.two_steps import two_steps

NORMS = (nn.GroupNorm, nn.LayerNorm)


def formats(module: nn.Module, of_norms: bool = False) -> set[torch.dtype]:
    """Returns the number formats of a network's frozen parameters, of normalisation or of the rest."""
    norms = {id(p) for m in module.modules() if isinstance(m, NORMS) for p in m.parameters()}
    return {p.dtype for p in module.parameters() if not p.requires_grad and (id(p) in norms) == of_norms}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("frozen", ["float16", "bfloat16"])
@pytest.mark.parametrize("trained", ["lora", "adapter"])
def test_what_learns_is_float32_on_a_base_in_half_precision(
    trained: Any, frozen: Any, precision: Any, stable_diffusion: Path, tmp_path: Path
) -> None:
    generator = two_steps(str(stable_diffusion), tmp_path, precision, trained=trained, frozen_dtype=frozen)
    model = generator.model
    for part in (model.unet, model.codec, model.text_encoder):
        assert formats(part) == {getattr(torch, frozen)} and formats(part, of_norms=True) == {torch.float32}
    faces = generator.synthesise(request_for(["happy", "sad"]))
    assert faces.images.float().std() > 5


def test_a_unet_that_learns_as_a_whole_is_float32(stable_diffusion: Path, tmp_path: Path) -> None:
    generator = two_steps(str(stable_diffusion), tmp_path, trained="all", frozen_dtype="bfloat16")
    assert {p.dtype for p in generator.model.unet.parameters()} == {torch.float32}
    assert formats(generator.model.codec) == formats(generator.model.text_encoder) == {torch.bfloat16}


@pytest.mark.parametrize(("bf16_sampling", "frozen"), [(True, "bfloat16"), (False, "bfloat16"), (False, "float16")])
@torch.no_grad()
def test_it_computes_what_float32_computes_up_to_rounding(
    bf16_sampling: bool, frozen: Any, stable_diffusion: Path
) -> None:
    def outputs(number_format: Any) -> list[torch.Tensor]:
        settings = {"base": str(stable_diffusion), "trained": "adapter", "bf16_sampling": bf16_sampling}
        generator = tiny_generator(**settings, frozen_dtype=number_format).eval()
        draws = torch.Generator().manual_seed(0)
        image = torch.rand(2, 3, 16, 16, generator=draws) * 2 - 1
        latents = torch.randn(2, 4, 8, 8, generator=draws)
        text = generator.model.encode_text(["a happy face", ""])
        au = generator.synthesiser.au_input(torch.rand(2, 41, generator=draws))
        codec = generator.model.codec
        return [text, generator.network(latents, 500, text, au), codec.encode(image), codec.decode(latents)]

    for half, whole in zip(outputs(frozen), outputs("float32"), strict=True):
        assert (half.float() - whole.float()).norm() < 0.03 * whole.float().norm()


def test_weights_take_half_the_memory(stable_diffusion: Path) -> None:
    def size(number_format: Any) -> int:
        generator = tiny_generator(base=str(stable_diffusion), trained="lora", frozen_dtype=number_format)
        return sum(p.numel() * p.element_size() for p in generator.parameters() if not p.requires_grad)

    assert size("bfloat16") < 0.55 * size("float32")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("frozen", ["float32", "stored"])
def test_stored_keeps_the_format_of_the_files(
    dtype: torch.dtype, frozen: Any, stable_diffusion: Path, tmp_path: Path
) -> None:
    base = sd.copied(stable_diffusion, tmp_path / "base", sd.weights_in(dtype))
    model = tiny_generator(base=str(base), trained="adapter", frozen_dtype=frozen).model
    expected = torch.float32 if frozen == "float32" else dtype
    assert formats(model.unet) == formats(model.codec) == formats(model.text_encoder) == {expected}
    stored = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"]
    assert torch.equal(model.unet.conv_in.weight.float(), stored.float())


def test_a_checkpoint_and_a_folder_come_back(stable_diffusion: Path, tmp_path: Path) -> None:
    generator = two_steps(str(stable_diffusion), tmp_path, frozen_dtype="bfloat16").eval()
    request = request_for(["happy", "sad"])
    generator.save_trained(tmp_path / "folder")
    stored = load_file(tmp_path / "folder" / "model.safetensors")
    assert stored and all("lora" in name or "_ip" in name or "encoder_hid_proj" in name for name in stored)
    expected = generator.synthesise(request).images.int()
    path = save_checkpoint(generator, tmp_path / "last.ckpt")
    for place, tolerance in ((path, 0), (tmp_path / "folder", 3)):
        again = ExpressionGenerator.load_trained(place)
        assert formats(again.model.unet) == {torch.bfloat16, torch.float32}  # frozen now, adapters among them
        assert (again.synthesise(request).images.int() - expected).abs().max() <= tolerance
    assert path.stat().st_size < sum(f.stat().st_size for f in stable_diffusion.rglob("*.safetensors"))


def test_an_unknown_format_and_one_without_a_base_are_refused(stable_diffusion: Path) -> None:
    with pytest.raises(ValueError, match=r"model.frozen_dtype: found fp16, expected one of \('float32', 'stored', '"):
        tiny_generator(base=str(stable_diffusion), frozen_dtype="fp16")
    with pytest.raises(ValueError, match=r"model.frozen_dtype: found 'float16' without model.base, expected 'float32'"):
        tiny_generator(frozen_dtype="float16")


def test_weights_beyond_float16_are_refused(stable_diffusion: Path, tmp_path: Path) -> None:
    large = sd.keys_of("vae", str, **{"encoder.conv_in.bias": torch.full((8,), 1e6)})
    base = str(sd.copied(stable_diffusion, tmp_path / "base", large))
    tiny_generator(base=base, trained="adapter", frozen_dtype="bfloat16")
    with pytest.raises(ValueError, match=r"model.frozen_dtype 'float16 of .*vae': found 8 of 8 .* NaN or infinite"):
        tiny_generator(base=base, trained="adapter", frozen_dtype="float16")
