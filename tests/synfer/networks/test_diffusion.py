from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from synfer.networks.diffusion import SMALL_SCHEDULER, load_diffusion_model, small_diffusion_model
from synfer.networks.latent_codec import AutoencoderKLCodec, SpaceToDepthCodec
from tests.fixtures.tiny_generator import SIDE, TINY_TEXT, TINY_UNET, save_base


def small(**changes: Any) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "unet": TINY_UNET,
        "text_encoder": TINY_TEXT,
        "scheduler": {},
        "codec": "space_to_depth",
        "codec_config": {"patch": 4, "channels": 3},
        "image_size": SIDE,
    }
    return small_diffusion_model(**{**settings, **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


def test_small_model_fits_together() -> None:
    model = small().eval()
    assert isinstance(model.codec, SpaceToDepthCodec)
    latents = model.codec.encode(torch.rand(2, 3, SIDE, SIDE))
    text = model.encode_text(["a happy face", ""])
    assert text.shape == (2, 16, 16)
    assert model.unet(latents, 3, text).sample.shape == latents.shape
    assert model.unet.config.sample_size == latents.shape[-1]


def test_small_schedule_ends_in_pure_noise_and_starts_clean() -> None:
    scheduler = small().scheduler
    assert float(scheduler.alphas_cumprod[-1]) == 0 and float(scheduler.final_alpha_cumprod) == 1
    assert scheduler.config.prediction_type == SMALL_SCHEDULER["prediction_type"]
    assert small(scheduler={"num_train_timesteps": 100}).scheduler.config.num_train_timesteps == 100


def test_text_of_a_caption_does_not_depend_on_its_neighbours() -> None:
    model = small().eval()
    together = model.encode_text(["a happy face", "a photo of a person with a sad face"])
    torch.testing.assert_close(together[:1], model.encode_text(["a happy face"]), atol=1e-6, rtol=0)
    assert (together[0] - together[1]).abs().amax() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 18}, "model.image_size: found 18, expected a multiple of 4"),
        ({"text_encoder": {**TINY_TEXT, "hidden_size": 32}}, "cross_attention_dim 16 differs from .* 32"),
        ({"codec": "jpeg"}, "model.network.codec: found 'jpeg'"),
        ({"scheduler": {"prediction_typ": "epsilon"}}, "model.network.scheduler: .*'prediction_typ'"),
        ({"scheduler": {"prediction_type": "flow"}}, "prediction_type: found 'flow'"),
        ({"scheduler": {"prediction_type": "epsilon"}}, "'epsilon' with rescale_betas_zero_snr"),
        ({"text_encoder": {**TINY_TEXT, "num_layers": 3}}, "model.network.text_encoder: .*'num_layers'"),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_an_unknown_key_of_the_unet_is_named() -> None:
    with pytest.raises((TypeError, ValueError), match="block_channels"):
        small(unet={**TINY_UNET, "block_channels": [8, 8]})


def test_a_diffusers_folder_is_loaded_as_it_is(base: Path) -> None:
    model = load_diffusion_model(str(base), {})
    assert isinstance(model.codec, AutoencoderKLCodec) and model.codec.downscale == 2
    stored = UNet2DConditionModel.from_pretrained(base, subfolder="unet").state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.unet.state_dict().items())
    config = DDIMScheduler.load_config(base, subfolder="scheduler")
    for key in ("prediction_type", "steps_offset", "set_alpha_to_one", "beta_schedule", "timestep_spacing"):
        assert model.scheduler.config[key] == config[key]
    assert model.encode_text(["a happy face"]).shape == (1, 16, 16)


def test_scheduler_keys_replace_those_of_the_folder(base: Path) -> None:
    model = load_diffusion_model(str(base), {"timestep_spacing": "trailing", "clip_sample": True})
    assert model.scheduler.config.timestep_spacing == "trailing" and model.scheduler.config.clip_sample
    assert model.scheduler.config.steps_offset == 1


def test_an_unknown_scheduler_key_is_refused_on_a_folder_too(base: Path) -> None:
    with pytest.raises(ValueError, match=r"model.network.scheduler: .*'spacing'"):
        load_diffusion_model(str(base), {"spacing": "trailing"})


def test_a_stored_schedule_that_clips_is_not_kept(tmp_path: Path) -> None:
    folder = save_base(tmp_path, clip_sample=True)
    assert load_diffusion_model(str(folder), {}).scheduler.config.clip_sample is False


def test_missing_folder_and_missing_parts_are_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.base .*nowhere"):
        load_diffusion_model(str(tmp_path / "nowhere"), {})
    for part in ("vae", "tokenizer"):
        partial = tmp_path / f"without-{part}"
        shutil.copytree(base, partial)
        shutil.rmtree(partial / part)
        with pytest.raises(FileNotFoundError, match=f"found no folder '{part}'"):
            load_diffusion_model(str(partial), {})
    shutil.copytree(base, tmp_path / "no-weights")
    (tmp_path / "no-weights" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.base"):
        load_diffusion_model(str(tmp_path / "no-weights"), {})


def changed_config(base: Path, folder: Path, part: str, **changes: Any) -> str:
    """Copies the base and changes the config of one part."""
    shutil.copytree(base, folder)
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(folder)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"addition_embed_type": "text_time"}, "found a UNet with addition_embed_type 'text_time' as in SDXL"),
        ("unet", {"in_channels": 9}, "found a UNet that takes 9 channels as for inpainting and makes 4, expected 4"),
        (
            "unet",
            {"in_channels": 8},
            "found a UNet that takes 8 channels as for editing by instruction and makes 4, expected 4",
        ),
        ("text_encoder", {"hidden_size": 32}, "found a text encoder of width 32 beside a UNet that reads 16"),
        ("text_encoder", {"num_hidden_layers": 2}, r"found no '.*layers\.1.*' in the weights of text_encoder"),
        ("unet", {"layers_per_block": 2}, "expected "),
    ],
)
def test_models_of_another_shape_are_one_line(
    part: str, changes: dict[str, Any], message: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"^model\.base '.*other': .*{message}") as caught:
        load_diffusion_model(changed_config(base, tmp_path / "other", part, **changes), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_folders_in_another_number_format_are_computed_in_float32(
    dtype: torch.dtype, variant: str | None, base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(base, folder)
    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)):
        network = kind.from_pretrained(base, subfolder=part).to(dtype)
        shutil.rmtree(folder / part)
        network.save_pretrained(folder / part, variant=variant)
        assert not variant or list((folder / part).glob("*.fp16.safetensors"))
    model = load_diffusion_model(str(folder), {})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    text = model.encode_text(["a happy face"])
    assert model.unet(torch.zeros(1, 4, 8, 8), 3, text).sample.dtype == torch.float32
    stored, plain = model.text_encoder.state_dict(), load_diffusion_model(str(base), {}).text_encoder.state_dict()
    assert all(torch.equal(tensor.to(dtype), plain[name].to(dtype)) for name, tensor in stored.items())


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_a_base_that_are_no_numbers(part: str, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "nan")
    (path,) = (tmp_path / "nan" / part).glob("*.safetensors")
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"model\.base '.*nan/{part}': found .* numbers in '.*' that are NaN"):
        load_diffusion_model(str(tmp_path / "nan"), {})


@pytest.mark.parametrize(
    "file",
    [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_damaged_part_of_a_base_is_one_line(file: str, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "torn")
    path = tmp_path / "torn" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((ValueError, FileNotFoundError), match=r"^model\.base '.*torn': ") as caught:
        load_diffusion_model(str(tmp_path / "torn"), {})
    assert "\n" not in str(caught.value)
