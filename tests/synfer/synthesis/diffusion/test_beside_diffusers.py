"""A loaded base makes the latents that diffusers' own pipeline makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from lightning_modules.generator import ExpressionGenerator
from synfer.networks.quiet_loading import quiet_loading
from synfer.synthesis.diffusion.denoising import denoise
from synfer.synthesis.diffusion.inversion import ddim_invert
from synfer.synthesis.request import SamplingSettings, SynthesisRequest, initial_noise
from tests.fixtures import stable_diffusion_folder as sd
from tests.fixtures.tiny_generator import SIDE, state_for, tiny_generator

NAMES = ("happy", "sad", "neutral")
SAMPLERS: dict[str, Any] = {"ddim": DDIMScheduler, "dpm_solver++": DPMSolverMultistepScheduler}
CAPTIONS = ("a happy face", "a sad face of a person", "face")


def louder(folder: Path) -> None:
    """Scales the text's way into the UNet up: random weights alone hardly hear the text."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if "attn2.to_v.weight" in name or "attn2.to_out.0.weight" in name:
            tensor.mul_(8)
    save_file(tensors, path, metadata={"format": "pt"})


FOLDERS: dict[str, list[sd.Change]] = {
    "epsilon, PNDM": [],
    "epsilon, trailing": [sd.scheduler_of(diffusers.DDIMScheduler, timestep_spacing="trailing", clip_sample=False)],
    "epsilon, Euler": [sd.scheduler_of(diffusers.EulerDiscreteScheduler)],
    "v, DDIM": [
        sd.scheduler_of(
            diffusers.DDIMScheduler, prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1
        ),
    ],
    "v, pure noise, trailing": [
        sd.scheduler_of(
            diffusers.DDIMScheduler,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        ),
    ],
}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, stable_diffusion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd.copied(stable_diffusion, tmp_path_factory.mktemp("base") / "folder", louder, *FOLDERS[request.param])


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusionPipeline:
    with quiet_loading():
        made = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def asked(generator: ExpressionGenerator, known_au: bool, **settings: Any) -> SynthesisRequest:
    """Returns a request without a strength of the AU branch: what the base alone makes."""
    fill = 0.7 if known_au else np.nan
    units = np.full((len(NAMES), len(generator.au_names)), fill, dtype=np.float32)
    chosen = SamplingSettings(au_scale=0.0, **{"num_steps": 10, "guidance_scale": 7.5, **settings})
    return SynthesisRequest(NAMES, tuple(range(len(NAMES))), 3, CAPTIONS, units, chosen)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("known_au", [False, True], ids=["unknown action units", "known action units"])
def test_latents_are_those_of_diffusers(
    sampler: str, known_au: bool, folder: Path, pipeline: StableDiffusionPipeline
) -> None:
    generator = tiny_generator(base=str(folder), trained="adapter")
    request = asked(generator, known_au, scheduler=sampler, negative_prompt="a sad face")
    state = state_for(generator, request)
    noise = initial_noise(request, tuple(state.latents.shape[1:]))
    final = {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"} if sampler != "ddim" else {}
    reference = StableDiffusionPipeline(
        **{
            **pipeline.components,
            "scheduler": SAMPLERS[sampler].from_config(pipeline.scheduler.config, clip_sample=False, **final),
        },
        requires_safety_checker=False,
    )
    reference.set_progress_bar_config(disable=True)
    expected = reference(
        list(CAPTIONS),
        negative_prompt=["a sad face"] * len(CAPTIONS),
        height=SIDE,
        width=SIDE,
        num_inference_steps=request.settings.num_steps,
        guidance_scale=7.5,
        latents=noise,
        output_type="latent",
    ).images
    found = denoise(state)
    assert expected.std() > 0.1 and (expected[0] - expected[1]).abs().max() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_decoded_faces_are_those_of_diffusers(folder: Path, pipeline: StableDiffusionPipeline) -> None:
    generator = tiny_generator(base=str(folder), trained="adapter").eval()
    latents = torch.randn(2, 4, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        torch.testing.assert_close(generator.model.codec.decode(latents), expected, rtol=0, atol=1e-5)
        text = pipeline.encode_prompt(list(CAPTIONS), "cpu", 1, False)[0]
        torch.testing.assert_close(generator.model.encode_text(list(CAPTIONS)), text, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("steps", "inverted"), [(20, 10), (10, 7)])
def test_inverting_and_sampling_returns_the_latents(steps: int, inverted: int, folder: Path) -> None:
    generator = tiny_generator(base=str(folder), trained="adapter")
    state = state_for(generator, asked(generator, False, num_steps=steps, guidance_scale=1.0))
    clean = 0.8 * torch.randn(state.latents.shape, generator=torch.Generator().manual_seed(5))
    state.latents = ddim_invert(state, clean, inverted, fixed_point_iterations=8)
    assert (state.latents - clean).pow(2).mean() > 0.01
    state.first_step = steps - inverted
    assert float((denoise(state) - clean).pow(2).mean().sqrt() / clean.pow(2).mean().sqrt()) < 1e-3
