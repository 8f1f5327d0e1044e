from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers.utils import dynamic_modules_utils
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer

from lightning_modules.generator import ExpressionGenerator
from synfer.export.exporter import ExportSettings
from synfer.export.model_folder import write_schedule, write_tokenizer
from synfer.export.pipeline import PipelineExporter
from synfer.networks.network_settings import NetworkSettings
from tests.fixtures.exported import (
    GUIDANCE,
    STEPS,
    generator_of,
    noise_of,
    our_latents,
    request,
    save_pipeline,
    stock_pipeline,
    their_latents,
)
from tests.fixtures.tiny_generator import SIDE, TINY_AUTOENCODER, tiny_generator


@pytest.fixture(scope="module", autouse=True)
def _own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of the test's, not of the user's, for the Python files that diffusers copies before it runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.syspath_prepend(dynamic_modules_utils.HF_MODULES_CACHE)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def generator(base: Path) -> ExpressionGenerator:
    return generator_of(base, alpha=6.0, null_caption="a face")


@pytest.fixture(scope="module")
def folder(generator: ExpressionGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "pipeline"
    PipelineExporter().export(generator, out)
    return out


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return opened(folder)


def opened(folder: Path) -> Any:
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline="expression_pipeline", trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def units_of(places: list[int] | None = None) -> torch.Tensor:
    units = torch.from_numpy(request().action_units)
    return units if places is None else units[places]


def test_a_batch_equals_one_by_one_and_our_sampler(pipe: Any, generator: ExpressionGenerator) -> None:
    asked = request()
    ours = our_latents(generator, asked)
    batch = their_latents(pipe, asked, action_units=units_of())
    single = torch.cat([their_latents(pipe, asked, [i], action_units=units_of([i])) for i in range(3)])
    torch.testing.assert_close(batch, single, atol=1e-4, rtol=0)
    torch.testing.assert_close(batch, ours, atol=1e-4, rtol=0)
    others = their_latents(pipe, asked, action_units=units_of([1, 2, 0]))
    assert (others - ours).abs().amax((1, 2, 3)).min() > 0.01  # each image hears its own row


def test_diffusers_own_pipeline_mixes_the_rows_of_a_batch(folder: Path, generator: ExpressionGenerator) -> None:
    pipe = stock_pipeline(folder)
    weights = "diffusion_pytorch_model.safetensors"
    pipe.load_ip_adapter(folder, subfolder="au_adapter", weight_name=weights, image_encoder_folder=None)
    asked = request()
    ours = our_latents(generator, asked)
    units = units_of()
    both = torch.cat([torch.full_like(units, torch.nan), units])
    negative = {"negative_prompt": ["a face"] * 3}
    mixed = their_latents(pipe, asked, ip_adapter_image_embeds=[generator.synthesiser.au_input(both)], **negative)
    assert (mixed - ours).abs().max() > 0.01  # what this export's class is for
    one = [generator.synthesiser.au_input(both[[1, 4]])]
    right = their_latents(pipe, asked, [1], ip_adapter_image_embeds=one, negative_prompt=["a face"])
    torch.testing.assert_close(right, ours[1:2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_other_guidance(guidance_scale: float, pipe: Any, generator: ExpressionGenerator) -> None:
    asked = request(guidance_scale=guidance_scale)
    theirs = their_latents(pipe, asked, action_units=units_of(), guidance_scale=guidance_scale)
    torch.testing.assert_close(theirs, our_latents(generator, asked), atol=1e-4, rtol=0)


def test_no_action_units_are_unknown_ones(pipe: Any) -> None:
    asked = request()
    unknown = their_latents(pipe, asked, action_units=torch.full((1, 41), torch.nan))
    assert torch.equal(their_latents(pipe, asked), unknown)


def test_several_images_of_a_prompt_share_its_row(pipe: Any) -> None:
    asked = request()
    noise = noise_of(asked)[[0, 1, 0, 1]]
    settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "height": SIDE, "width": SIDE}
    pairs = pipe(
        list(asked.captions[:2]),
        units_of([0, 1]),
        num_images_per_prompt=2,
        latents=noise,
        output_type="latent",
        **settings,
    ).images
    for place, (prompt, row) in enumerate([(0, 0), (0, 0), (1, 1), (1, 1)]):
        one = pipe(
            asked.captions[prompt], units_of([row]), latents=noise[place : place + 1], output_type="latent", **settings
        ).images
        torch.testing.assert_close(pairs[place : place + 1], one, atol=1e-4, rtol=0)


def test_embedded_prompts(pipe: Any) -> None:
    asked = request()
    embeds, _ = pipe.encode_prompt(list(asked.captions), "cpu", 1, False)
    settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "height": SIDE, "width": SIDE}
    latents = pipe(
        None, units_of(), prompt_embeds=embeds, latents=noise_of(asked), output_type="latent", **settings
    ).images
    torch.testing.assert_close(latents, their_latents(pipe, asked, action_units=units_of()), atol=1e-5, rtol=0)


def test_another_number_of_rows_is_an_error(pipe: Any) -> None:
    with pytest.raises(ValueError, match="action_units: found 2 rows for 3 prompts, expected 1 or 3"):
        their_latents(pipe, request(), action_units=units_of([0, 1]))
    with pytest.raises(ValueError, match="ip_adapter_image: found a picture, expected action_units"):
        pipe.prepare_ip_adapter_image_embeds(object(), None, "cpu", 1, True)


def test_pictures_are_those_of_our_sampler(pipe: Any, generator: ExpressionGenerator) -> None:
    asked = request()
    ours = generator.synthesise(asked).images.permute(0, 2, 3, 1).numpy()
    theirs = pipe(
        list(asked.captions),
        units_of(),
        latents=noise_of(asked),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        height=SIDE,
        width=SIDE,
    ).images
    difference = np.abs(np.stack([np.asarray(image) for image in theirs]).astype(int) - ours.astype(int))
    assert difference.max() <= 1  # a rounding to whole grey levels


def test_saved_by_diffusers_and_opened_again_it_is_the_same(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    asked = request()
    again = their_latents(opened(tmp_path), asked, action_units=units_of())
    assert torch.equal(again, their_latents(pipe, asked, action_units=units_of()))


def test_our_own_loader_gives_the_same(folder: Path, pipe: Any) -> None:
    loaded = PipelineExporter().load(folder)
    loaded.set_progress_bar_config(disable=True)
    asked = request()
    latents = their_latents(loaded, asked, action_units=units_of())
    torch.testing.assert_close(latents, their_latents(pipe, asked, action_units=units_of()), atol=1e-5, rtol=0)
    with pytest.raises(FileNotFoundError, match=r"pipeline '.*nowhere'|index of a pipeline '.*nowhere"):
        PipelineExporter().load(folder / "nowhere")


def test_the_unet_has_no_trace_of_the_parts(folder: Path, base: Path, generator: ExpressionGenerator) -> None:
    written = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    plain = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    assert written.keys() == plain.keys()
    changed = {name for name, tensor in written.items() if not torch.equal(tensor, plain[name])}
    assert changed == {n for n in plain if any(f".{t}.weight" in n for t in ("to_q", "to_k", "to_v", "to_out.0"))}
    config = json.loads((folder / "unet" / "config.json").read_text())
    assert config["encoder_hid_dim_type"] is None


def test_what_the_adapter_has_learnt_in_the_unet_is_saved(folder: Path, tmp_path: Path) -> None:
    pipe = opened(folder)
    with torch.no_grad():
        for parameter in pipe.unet.encoder_hid_proj.parameters():
            parameter.add_(0.1)
    asked = request()
    changed = their_latents(pipe, asked, action_units=units_of())
    assert not torch.equal(changed, their_latents(opened(folder), asked, action_units=units_of()))
    pipe.save_pretrained(tmp_path)
    assert torch.equal(their_latents(opened(tmp_path), asked, action_units=units_of()), changed)


# ---------------------------------------------------------------- the parts of transformers


def test_the_text_encoder_has_the_names_of_transformers_4_and_opens_in_5(
    folder: Path, generator: ExpressionGenerator
) -> None:
    names = load_file(folder / "text_encoder" / "model.safetensors").keys()
    assert all(name.startswith("text_model.") for name in names) and "text_model.final_layer_norm.weight" in names
    encoder, info = CLIPTextModel.from_pretrained(folder / "text_encoder", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    own = generator.model.text_encoder.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in encoder.state_dict().items())


def test_a_general_tokenizer_is_written_under_the_name_that_4_knows(
    folder: Path, generator: ExpressionGenerator
) -> None:
    assert json.loads((folder / "model_index.json").read_text())["tokenizer"][1] == "PreTrainedTokenizerFast"
    loaded = AutoTokenizer.from_pretrained(folder / "tokenizer")
    text = ["a photo of a face with a happy expression"]
    assert loaded(text).input_ids == generator.model.tokenizer(text).input_ids
    assert loaded.model_max_length == generator.model.tokenizer.model_max_length


def test_a_clip_tokenizer_keeps_the_files_that_4_reads(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(
        json.dumps({w: i for i, w in enumerate(["h", "i</w>", "hi</w>", "<|startoftext|>", "<|endoftext|>"])})
    )
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh i</w>\n")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path, model_max_length=8)
    out = tmp_path / "out"
    assert write_tokenizer(out, tokenizer) == "CLIPTokenizer"
    assert (
        json.loads((out / "vocab.json").read_text()).keys() == json.loads((tmp_path / "vocab.json").read_text()).keys()
    )
    assert "h i</w>" in (out / "merges.txt").read_text()
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "CLIPTokenizer" and settings["model_max_length"] == 8
    assert not {"is_local", "name_or_path"} & settings.keys()
    assert CLIPTokenizer.from_pretrained(out)("hi").input_ids == tokenizer("hi").input_ids == [3, 2, 4]


# ---------------------------------------------------------------- noise schedules, number formats, other generators


def test_a_schedule_is_written_without_what_a_class_fills_in(tmp_path: Path) -> None:
    stored = {
        "_class_name": "PNDMScheduler",
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "skip_prk_steps": True,
    }
    scheduler = DDIMScheduler.from_config(stored)
    write_schedule(tmp_path, scheduler)
    again = DDIMScheduler.from_pretrained(tmp_path)
    assert again.config.timestep_spacing == scheduler.config.timestep_spacing
    for schedule in (scheduler, again):
        assert DPMSolverMultistepScheduler.from_config(schedule.config).config.timestep_spacing == "linspace"


@pytest.mark.parametrize(
    "schedule",
    [
        {"steps_offset": 0, "timestep_spacing": "leading"},  # which diffusers' class would set to 1
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ],
)
def test_other_noise_schedules(schedule: dict[str, Any], base: Path, tmp_path: Path) -> None:
    generator = generator_of(base, trained="adapter", network=NetworkSettings(scheduler=schedule))
    PipelineExporter().export(generator, tmp_path)
    asked = request()
    theirs = their_latents(opened(tmp_path), asked, action_units=units_of())
    torch.testing.assert_close(theirs, our_latents(generator, asked), atol=1e-4, rtol=0)


def test_another_sampler_on_the_stored_schedule(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base)
    PipelineExporter().export(generator, tmp_path)
    pipe = opened(tmp_path)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, algorithm_type="dpmsolver++", final_sigmas_type="zero"
    )
    ours = our_latents(generator, request(scheduler="dpm_solver++"))
    torch.testing.assert_close(their_latents(pipe, request(), action_units=units_of()), ours, atol=1e-4, rtol=0)


def test_half_precision_runs_as_the_card_says(generator: ExpressionGenerator, tmp_path: Path) -> None:
    PipelineExporter(ExportSettings("bfloat16")).export(generator, tmp_path)
    assert "pipe.to(torch.bfloat16)" in (tmp_path / "README.md").read_text()
    pipe = opened(tmp_path).to(torch.bfloat16)
    assert {p.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()} == {torch.bfloat16}
    asked = request()
    settings = {"num_inference_steps": STEPS, "height": SIDE, "width": SIDE, "output_type": "latent"}
    assert pipe(list(asked.captions), units_of(), **settings).images.isfinite().all()


def test_a_fully_trained_unet_is_exported(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base, trained="all")
    with torch.no_grad():
        for parameter in generator.model.unet.parameters():
            parameter.add_(0.02)
    PipelineExporter().export(generator, tmp_path)
    asked = request()
    theirs = their_latents(opened(tmp_path), asked, action_units=units_of())
    torch.testing.assert_close(theirs, our_latents(generator, asked), atol=1e-4, rtol=0)


def test_a_small_generator_with_a_learned_codec_is_exported(tmp_path: Path) -> None:
    settings = {"codec": "autoencoder_kl", "codec_config": TINY_AUTOENCODER, "autoencoder_steps": 1}
    generator = tiny_generator(**settings)
    PipelineExporter().export(generator, tmp_path)
    asked = request()
    theirs = their_latents(opened(tmp_path), asked, action_units=units_of())
    torch.testing.assert_close(theirs, our_latents(generator.eval(), asked), atol=1e-4, rtol=0)


def test_pixels_as_latents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pipeline: found model.network.codec 'space_to_depth', which diffusers does"):
        PipelineExporter().export(tiny_generator(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_an_adapter_it_is_diffusers_own_pipeline(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base)
    unet = generator.model.unet
    unet.encoder_hid_proj = None
    unet.config.encoder_hid_dim_type = None
    unet.set_default_attn_processor()
    PipelineExporter().export(generator, tmp_path)
    assert not list(tmp_path.rglob("*.py"))
    pipe = stock_pipeline(tmp_path)
    assert type(pipe) is StableDiffusionPipeline
    assert type(PipelineExporter().load(tmp_path)) is StableDiffusionPipeline
    asked = request(au_scale=0.0)
    ours = our_latents(generator_of(base), asked)
    torch.testing.assert_close(their_latents(pipe, asked), ours, atol=1e-4, rtol=0)


def test_an_export_is_a_base(folder: Path) -> None:
    generator = tiny_generator(base=str(folder), trained="adapter")
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(generator.model.unet.conv_in.weight, stored["conv_in.weight"])
