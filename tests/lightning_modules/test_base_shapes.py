"""Folders of Stable Diffusion as users have them: each trains two steps, or is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import diffusers
import pytest
import torch

import train
from experiments.command_line.errors import one_line_errors
from tests.fixtures import stable_diffusion_folder as sd
from tests.fixtures.tiny_generator import tiny_generator
from tests.fixtures.two_steps import two_steps

PROJECT = Path(train.__file__).parent
POSITIONS = torch.arange(sd.POSITIONS)[None]
HALF = torch.float16
PYTHON = r"NoneType|has no attribute|KeyError|TypeError|unexpected keyword|torch\.Size|cannot be read"


LOADS: dict[str, list[sd.Change]] = {
    "float32, PNDM, epsilon": [],
    "float16": [sd.weights_in(HALF)],
    "bfloat16": [sd.weights_in(torch.bfloat16)],
    "a variant alone": [sd.weights_in(HALF, variant="fp16")],
    "shards": [sd.weights_in(torch.float32, max_shard_size="80KB")],
    "a variant in shards": [sd.weights_in(HALF, variant="fp16", max_shard_size="40KB")],
    "old keys": [
        sd.keys_of("text_encoder", sd.old_text_keys, **{"text_model.embeddings.position_ids": POSITIONS}),
        sd.keys_of("vae", sd.old_attention_keys),
    ],
    "v prediction to pure noise": [
        sd.scheduler_of(
            diffusers.DDIMScheduler,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        ),
    ],
    "a tokenizer of two files": [sd.without("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json")],
    "a tokenizer as in 2.x": [
        sd.config_of("tokenizer", pad_token="!"),
        sd.config_of("text_encoder", hidden_act="gelu", projection_dim=32),
    ],
    "a scheduler without clip_sample": [sd.config_of("scheduler", clip_sample=None, prediction_type=None)],
    "a safety checker": [
        sd.with_file("safety_checker/config.json"),
        sd.with_file("safety_checker/pytorch_model.bin"),
        sd.with_file("feature_extractor/preprocessor_config.json"),
        sd.with_file("v1-5-pruned.ckpt"),
    ],
    "old configs without defaults": [
        sd.without("model_index.json"),
        sd.config_of("vae", scaling_factor=None, force_upcast=None, latents_mean=None, shift_factor=None),
        sd.config_of("unet", class_embed_type=None, num_class_embeds=None, addition_embed_type=None),
    ],
}
for _name in (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
):
    LOADS[_name] = [sd.scheduler_of(getattr(diffusers, _name))]


@pytest.mark.parametrize("shape", LOADS)
def test_it_loads_and_trains(shape: str, stable_diffusion: Path, tmp_path: Path) -> None:
    generator = two_steps(str(sd.copied(stable_diffusion, tmp_path / "base", *LOADS[shape])), tmp_path)
    assert {p.dtype for p in generator.parameters()} == {torch.float32}
    assert generator.model.tokenizer.model_max_length == sd.POSITIONS
    assert not generator.model.scheduler.config.clip_sample


def cut(name: str, share: float = 0.5) -> sd.Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def second_text_encoder(folder: Path) -> None:
    sd.copied(folder / "text_encoder", folder / "text_encoder_2")


def pickled(folder: Path) -> None:
    for part, kind in sd.KINDS.items():
        network = kind.from_pretrained(folder, subfolder=part)
        (path,) = (folder / part).glob("*.safetensors")
        torch.save(
            network.state_dict(), folder / part / ("pytorch_model.bin" if "text" in part else f"{path.stem}.bin")
        )
        path.unlink()


def transformer(folder: Path) -> None:
    (folder / "unet").rename(folder / "transformer")


def shard_lost(folder: Path) -> None:
    sorted((folder / "unet").glob("*-of-*"))[1].unlink()


def fewer_embeddings(folder: Path) -> None:
    encoder = sd.KINDS["text_encoder"].from_pretrained(folder, subfolder="text_encoder")
    encoder.resize_token_embeddings(500)
    encoder.save_pretrained(folder / "text_encoder")


UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
REFUSED: dict[str, tuple[list[sd.Change], str]] = {
    "SDXL": (
        [sd.config_of("unet", addition_embed_type="text_time")],
        "found a UNet with addition_embed_type 'text_time' as in SDXL, expected the shape of Stable Diffusion 1.x or 2",
    ),
    "two text encoders": ([second_text_encoder], "found a second text encoder as in SDXL, expected"),
    "inpainting": (
        [sd.config_of("unet", in_channels=9)],
        "found a UNet that takes 9 channels as for inpainting and makes 4, expected 4 like the latents of its VAE",
    ),
    "depth": ([sd.config_of("unet", in_channels=5)], "takes 5 channels as for depth and makes 4, expected 4"),
    "upscaler": (
        [sd.config_of("unet", in_channels=7, num_class_embeds=1000)],
        "found a UNet with num_class_embeds 1000 as for upscaling by four, expected",
    ),
    "class embeddings": (
        [sd.config_of("unet", class_embed_type="projection")],
        "found a UNet with class_embed_type 'projection' as in unCLIP, expected",
    ),
    "latent consistency": ([sd.config_of("unet", time_cond_proj_dim=256)], "as in a latent consistency model, expec"),
    "a transformer": (
        [transformer],
        "found a transformer in place of a unet, as in Stable Diffusion 3, Flux or PixArt (flow matching), expected",
    ),
    "flow matching": (
        [sd.config_of("scheduler", _class_name="FlowMatchEulerDiscreteScheduler")],
        "found the scheduler FlowMatchEulerDiscreteScheduler of flow matching, as in Stable Diffusion 3",
    ),
    "a scheduler without betas": (
        [sd.config_of("scheduler", _class_name="EDMEulerScheduler")],
        "found the scheduler EDMEulerScheduler, expected one whose noise levels come from betas",
    ),
    "a prediction of its own": (
        [sd.config_of("scheduler", prediction_type="velocity")],
        "prediction_type: found 'velocity', expected one of ('epsilon', 'v_prediction', 'sample')",
    ),
    "pickled weights": (
        [pickled],
        "found pickled weights alone in text_encoder ('pytorch_model.bin'), expected safete",
    ),
    "weights of JAX": (
        [sd.without(UNET), sd.with_file("unet/diffusion_flax_model.msgpack")],
        "found 'diffusion_flax_model.msgpack' alone in unet, expected safetensors",
    ),
    "no weights": ([sd.without(UNET)], "found no weights in unet, expected safetensors"),
    "another width": (
        [sd.config_of("text_encoder", hidden_size=32)],
        "found a text encoder of width 32 beside a UNet that reads 16 (cross_attention_dim), expected the same",
    ),
    "an encoder of another kind": (
        [sd.config_of("text_encoder", model_type="t5")],
        "found a text encoder of kind 't5', expected CLIP ('clip_text_model')",
    ),
    "an encoder of OpenCLIP": (
        [
            sd.without("text_encoder"),
            sd.with_file("text_encoder/open_clip_config.json"),
            sd.with_file("text_encoder/open_clip_model.safetensors"),
        ],
        "found no 'text_encoder/config.json' beside 'open_clip_config.json', expected",
    ),
    "keys of OpenCLIP": (
        [sd.keys_of("text_encoder", lambda name: name.replace("encoder.layers.", "transformer.resblocks."))],
        "layers.0.layer_norm1.bias' in the weights of text_encoder (16 such tensors), expected those that its config",
    ),
    "a part is missing": ([sd.without("vae")], "found no folder 'vae', expected a diffusers layout"),
    "a folder with a single file": (
        [sd.without(*sd.KINDS, "tokenizer", "scheduler", "model_index.json"), sd.with_file("v1-5.safetensors")],
        "found the single file 'v1-5.safetensors' (diffusers makes one: StableDiffusionPipeline.from_single_file(…)",
    ),
    "a LoRA alone": (
        [sd.without(*sd.KINDS), sd.with_file("pytorch_lora_weights.safetensors")],
        "found a LoRA alone, expected",
    ),
    "a key too few": (
        [sd.keys_of("unet", lambda name: name.replace("conv_in.bias", "conv_in.bia"))],
        "found no 'conv_in.bias' in the weights of unet (1 such tensors), expected",
    ),
    "a key too many": (
        [sd.keys_of("unet", str, au_scale=torch.ones(1))],
        "found a surplus 'au_scale' in the weights of unet (1 such tensors), expected",
    ),
    "another shape of a tensor": (
        [sd.config_of("unet", block_out_channels=[16, 32])],
        "of shape 16 in the weights of unet, expected 32 as its config asks for",
    ),
    "cut off": ([cut(UNET)], f"found '{UNET}' cut off or damaged ("),
    "cut off to nothing": ([cut(TEXT, 0.0)], f"found '{TEXT}' cut off or damaged ("),
    "a pointer of Git LFS": (
        [sd.with_file(UNET, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")],
        "found a pointer of Git LFS in 'unet/diffusion_pytorch_model.safetensors', expected the weights themselves",
    ),
    "a shard lost": (
        [sd.weights_in(torch.float32, max_shard_size="80KB"), shard_lost],
        "found no 'unet/diffusion_pytorch_model-00002-of-0000",
    ),
    "an index lost": (
        [
            sd.weights_in(torch.float32, max_shard_size="80KB"),
            sd.without("unet/diffusion_pytorch_model.safetensors.index.json"),
        ],
        "without an index, expected a file ….safetensors.index.json beside it",
    ),
    "quantised": (
        [sd.config_of("unet", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})],
        "found quantised weights in unet, expected float32, float16 or bfloat16",
    ),
    "a VAE of another class": (
        [sd.config_of("vae", _class_name="AutoencoderTiny")],
        "found a vae of class AutoencoderTiny, expected AutoencoderKL",
    ),
    "a VAE that shifts": (
        [sd.config_of("vae", shift_factor=0.1)],
        "found a VAE with shift_factor, as in Stable Diffus",
    ),
    "fewer embeddings than the config says": (
        [sd.config_of("text_encoder", vocab_size=600)],
        "found 'embeddings.token_embedding.weight' of shape 523×16 in the weights of text_encoder, expected 600×16 as",
    ),
    "more words than embeddings": (
        [fewer_embeddings],
        "found a tokenizer of 523 words beside a text encoder of 500, expected no more of them",
    ),
    "no tokenizer": (
        [sd.without("tokenizer/vocab.json")],
        "found neither tokenizer.json nor vocab.json and merges.txt in tokenizer, expected",
    ),
    "a config that is no JSON": ([sd.with_file("unet/config.json", b"{")], "config of unet"),
}


def error_line_of_the_command(
    base: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: Path
) -> str:
    """Returns the one line that ``train.py fit`` ends with, and checks that it has written nothing."""
    monkeypatch.chdir(where)
    configs = PROJECT / "configs"
    command = ["fit", f"--config={configs / 'generator' / 'tiny.yaml'}", f"--config={configs / 'data' / 'drawn.yaml'}"]
    with pytest.raises(SystemExit) as stopped:
        train.main([*command, f"--model.base={base}", "--model.trained=lora"])
    stderr = capsys.readouterr().err
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert stopped.value.code == 2 and len(lines) == 1 and "Traceback" not in stderr, stderr[-2000:]
    assert not re.search(PYTHON, lines[0])
    assert not (where / "runs").exists()
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize("shape", REFUSED)
def test_it_is_refused_in_one_line(
    shape: str, stable_diffusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, said = REFUSED[shape]
    base = str(sd.copied(stable_diffusion, tmp_path / "base", *changes))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped, one_line_errors(exit_code=2):
        tiny_generator(base=base, trained="lora")
    line = capsys.readouterr().err.rstrip().removeprefix("error: ")
    assert stopped.value.code == 2 and "\n" not in line
    assert not re.search(PYTHON, line) and "ignore_mismatched_sizes" not in line
    assert said in line and ", expected" in line
    assert line.startswith((f"model.base '{base}", "model.network.scheduler"))


@pytest.mark.parametrize("shape", ["SDXL", "cut off", "a part is missing", "flow matching"])
def test_the_command_ends_with_that_line(
    shape: str,
    stable_diffusion: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes, said = REFUSED[shape]
    base = str(sd.copied(stable_diffusion, tmp_path / "base", *changes))
    assert said in error_line_of_the_command(base, capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize("name", ["v1-5-pruned-emaonly.safetensors", "v1-5-pruned.ckpt"])
def test_a_single_file_is_refused_with_the_way_to_convert_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"weights")
    line = error_line_of_the_command(str(tmp_path / name), capsys, monkeypatch, tmp_path)
    assert "found a single file, expected a folder in diffusers' layout (diffusers makes one: StableDiff" in line


def test_a_model_of_the_hub_that_is_on_this_machine_needs_no_network(
    stable_diffusion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sd.in_hub_cache(stable_diffusion, tmp_path / "hub", "someone/faces-v1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    generator = two_steps("someone/faces-v1", tmp_path)
    assert json.loads(json.dumps(generator.hparams["base"])) == "someone/faces-v1"
    line = error_line_of_the_command("someone/faces-v2", capsys, monkeypatch, tmp_path)
    assert line.startswith("model.base 'someone/faces-v2': found neither a folder nor a copy in ")
    assert "(HF_HUB_OFFLINE is set), expected a diffusers folder or Hub id of Stable Diffusion 1.x or 2.x" in line
