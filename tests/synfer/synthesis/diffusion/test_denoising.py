from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from lightning_modules.generator import ExpressionGenerator
from synfer.networks.au_adapter import embed_action_units
from synfer.synthesis.diffusion.denoising import denoise, guided_output
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.faces import Faces
from tests.fixtures.tiny_generator import request_for, save_base, scaled_weights, state_for, tiny_generator


class Recorder:
    """A hook that notes when it is called."""

    def __init__(self, act: Callable[[DenoisingState], None] = lambda state: None) -> None:
        self.act = act
        self.calls: list[Any] = []

    def on_denoising_start(self, state: DenoisingState) -> None:
        self.calls.append("start")

    def on_denoising_step(self, state: DenoisingState) -> None:
        self.calls.append(state.step)
        self.act(state)

    def on_faces(self, faces: Faces) -> None:
        self.calls.append("end")


@pytest.fixture(scope="module")
def generator() -> ExpressionGenerator:
    return scaled_weights(tiny_generator())


@pytest.fixture(scope="module")
def on_base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExpressionGenerator]:
    """Generators on diffusers folders: SD 1.5's schedule (ε), and a v-predicting one with zero terminal SNR."""
    v_prediction = {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "steps_offset": 0,
        "set_alpha_to_one": True,
    }
    folders = {
        "epsilon": save_base(tmp_path_factory.mktemp("epsilon")),
        "v_prediction": save_base(tmp_path_factory.mktemp("v"), **v_prediction),
    }
    return {name: scaled_weights(tiny_generator(base=str(folder))).eval() for name, folder in folders.items()}


def pipeline_latents(generator: ExpressionGenerator, state: DenoisingState, steps: int, scale: float) -> torch.Tensor:
    """Runs diffusers' own Stable Diffusion pipeline on the parts of a generator."""
    model, diffusers_own = generator.model, state.sampler._scheduler  # type: ignore[attr-defined]
    pipeline = StableDiffusionPipeline(
        vae=model.codec.autoencoder,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=type(diffusers_own).from_config(diffusers_own.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    au = torch.from_numpy(state.request.action_units)
    wanted = embed_action_units(au, generator.region_masks)
    nothing = embed_action_units(torch.full_like(au, torch.nan), generator.region_masks)
    alone = [
        pipeline(  # one face at a time: the pipeline repeats image embeddings for every prompt of a batch
            prompt=state.request.captions[i],
            negative_prompt=state.settings.negative_prompt if scale > 1 else None,
            latents=state.latents[i : i + 1] / state.sampler.initial_scale,
            ip_adapter_image_embeds=[torch.cat([nothing, wanted])[i :: len(au)] if scale > 1 else wanted[i : i + 1]],
            num_inference_steps=steps,
            guidance_scale=scale,
            output_type="latent",
        ).images
        for i in range(len(au))
    ]
    return torch.cat(alone)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm_solver++"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("steps", "scale"), [(5, 1.0), (5, 2.0), (7, 7.5), (1, 2.0)])
def test_loop_is_diffusers_own(
    scheduler: str, prediction: str, steps: int, scale: float, on_base: dict[str, ExpressionGenerator]
) -> None:
    generator = on_base[prediction]
    request = request_for(
        ["happy", "sad"], num_steps=steps, guidance_scale=scale, scheduler=scheduler, negative_prompt="a sad face"
    )
    state = state_for(generator, request)
    expected = pipeline_latents(generator, state, steps, scale)
    latents = denoise(state)
    size = float(expected.abs().amax())
    assert size > 0.1
    assert float((latents - expected).abs().amax()) < 1e-4 * max(1.0, size)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm_solver++"])
def test_samplers_of_many_steps_meet(scheduler: str, generator: ExpressionGenerator) -> None:
    def latents(steps: int, kind: str) -> torch.Tensor:
        request = request_for(["happy"], num_steps=steps, scheduler=kind, guidance_scale=1.5)
        return denoise(state_for(generator, request))

    target = latents(40, "ddim")
    few, many = ((latents(steps, scheduler) - target).abs().mean() for steps in (3, 10))
    assert many < 0.5 * few


def test_guidance_extrapolates_from_the_unconditional_output(generator: ExpressionGenerator) -> None:
    outputs = {}
    for scale in (1.0, 2.0, 5.0):
        state = state_for(generator, request_for(guidance_scale=scale))
        with torch.no_grad():
            outputs[scale] = guided_output(state)
            unconditional = state.predict(state.null_text, state.null_au)
            conditional = state.predict(state.text, state.au)
    torch.testing.assert_close(outputs[1.0], conditional, atol=1e-5, rtol=0)
    for scale in (2.0, 5.0):
        expected = unconditional + scale * (conditional - unconditional)
        torch.testing.assert_close(outputs[scale], expected, atol=1e-4, rtol=0)
    assert (conditional - unconditional).abs().amax() > 1e-3


@pytest.mark.parametrize(
    ("scale", "left", "samples"), [(1.0, False, [3]), (1.0, True, []), (2.0, False, [6]), (2.0, True, [3])]
)
def test_a_conditional_output_left_by_a_hook_saves_its_pass(
    scale: float, left: bool, samples: list[int], generator: ExpressionGenerator
) -> None:
    state = state_for(generator, request_for(guidance_scale=scale))
    with torch.no_grad():
        conditional = state.predict(state.text, state.au)
        expected = guided_output(state)
    network, passes = state.network, []
    state.network = lambda latents, *rest: (passes.append(len(latents)), network(latents, *rest))[1]
    state.conditional_output = conditional if left else None
    with torch.no_grad():
        torch.testing.assert_close(guided_output(state), expected, atol=1e-5, rtol=0)
    assert passes == samples


def test_hooks_are_called_in_order_and_what_they_leave_lasts_one_step(generator: ExpressionGenerator) -> None:
    seen: list[torch.Tensor | None] = []

    def leave(state: DenoisingState) -> None:
        seen.append(state.conditional_output)
        state.conditional_output = torch.zeros_like(state.latents)

    hook = Recorder(leave)
    generator.synthesise(request_for(num_steps=3), [hook])
    assert hook.calls == ["start", 0, 1, 2, "end"]
    assert seen == [None, None, None]


def test_text_moved_by_a_hook_counts_from_that_step_on(generator: ExpressionGenerator) -> None:
    def move(state: DenoisingState) -> None:
        if state.step == 2:
            state.text = state.text + 1.0

    def latents_after(steps: int, hooks: list[Recorder]) -> torch.Tensor:
        state = state_for(generator, request_for(num_steps=4))
        state.sampler.timesteps = state.sampler.timesteps[:steps]
        return denoise(state, hooks)

    assert torch.equal(latents_after(2, []), latents_after(2, [Recorder(move)]))
    assert (latents_after(3, []) - latents_after(3, [Recorder(move)])).abs().amax() > 1e-4


@pytest.mark.parametrize("scheduler", ["ddim", "dpm_solver++"])
def test_denoising_can_begin_in_the_middle(scheduler: str, generator: ExpressionGenerator) -> None:
    state = state_for(generator, request_for(num_steps=10, scheduler=scheduler))
    state.first_step = 6
    hook = Recorder()
    latents = denoise(state, [hook])
    assert hook.calls == [6, 7, 8, 9]
    assert latents.isfinite().all()


def test_clean_face_of_the_last_step_is_the_result(generator: ExpressionGenerator) -> None:
    state = state_for(generator, request_for(num_steps=4, guidance_scale=1.0))
    clean: list[torch.Tensor] = []
    latents = denoise(state, [Recorder(lambda s: clean.append(s.clean(s.predict(s.text, s.au))))])
    torch.testing.assert_close(clean[-1], latents, atol=1e-5, rtol=0)


def test_negative_prompt_is_the_unconditional_branch(generator: ExpressionGenerator) -> None:
    def result(**settings: Any) -> torch.Tensor:
        return denoise(state_for(generator, request_for(**settings)))

    plain, negative = result(), result(negative_prompt="a photo of a person with a sad face")
    assert (plain - negative).abs().amax() > 1e-3
    off, still_off = result(guidance_scale=1.0), result(guidance_scale=1.0, negative_prompt="a sad face")
    assert torch.equal(off, still_off)


def test_autocast_is_the_state_s(tmp_path: Path) -> None:
    exact, rounded = (scaled_weights(tiny_generator(bf16_sampling=flag)) for flag in (False, True))
    seen: list[torch.dtype] = []
    rounded.model.unet.conv_out.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    a, b = (denoise(state_for(generator, request_for())) for generator in (exact, rounded))
    assert set(seen) == {torch.bfloat16}
    assert a.dtype == b.dtype == torch.float32
    assert 0 < (a - b).abs().mean() < 0.1 * a.abs().mean()


def test_guidance_acts_in_its_interval_alone(generator: ExpressionGenerator) -> None:
    passes: list[int] = []
    handle = generator.model.unet.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    denoise(state_for(generator, request_for(["happy"], num_steps=5, guidance_interval=(0.2, 0.6))))
    handle.remove()
    assert passes == [1, 2, 2, 1, 1]
    everywhere = denoise(state_for(generator, request_for(["happy"], num_steps=5, guidance_interval=(0.0, 1.0))))
    nowhere = denoise(state_for(generator, request_for(["happy"], num_steps=5, guidance_scale=1.0)))
    late = denoise(state_for(generator, request_for(["happy"], num_steps=5, guidance_interval=(0.8, 1.0))))
    assert 0 < (late - nowhere).abs().mean() < (everywhere - nowhere).abs().mean()


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("known", [[], [1], [0, 2], [0, 1, 2]])
def test_conditional_outputs_left_by_a_hook_are_not_computed_again(
    known: list[int], scale: float, generator: ExpressionGenerator
) -> None:
    state = state_for(generator, request_for(["happy", "sad", "neutral"], num_steps=5, guidance_scale=scale))
    expected = guided_output(state)
    rows = torch.zeros(3, dtype=torch.bool)
    rows[known] = True
    passes: list[int] = []
    conditional = state.predict(state.text, state.au)
    handle = generator.model.unet.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    # What was not left behind must not be read.
    state.conditional_output = torch.where(rows[:, None, None, None], conditional, torch.nan)
    state.conditional_rows = rows
    found = guided_output(state)
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    left = 3 - len(known) + (3 if scale > 1 else 0)
    assert passes == ([left] if left else [])


def test_au_tokens_are_made_once_whatever_the_number_of_steps(generator: ExpressionGenerator) -> None:
    layer = generator.model.unet.encoder_hid_proj.image_projection_layers[0]
    calls: list[int] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    denoise(state_for(generator, request_for(["happy", "sad"], num_steps=5)))
    handle.remove()
    assert len(calls) == 2  # wanted and unconditional


def test_a_hook_may_change_the_output_that_the_sampler_takes(generator: ExpressionGenerator) -> None:
    class Setting(Recorder):
        def on_guided_output(self, state: DenoisingState) -> None:
            assert state.output is not None and state.step == self.calls[-1]
            clean = torch.full_like(state.latents, 0.25)
            state.output = state.output_for(clean, state.latents)

    state, hook = state_for(generator, request_for(num_steps=4)), Setting()
    latents = denoise(state, [hook, Recorder()])
    assert hook.calls == [0, 1, 2, 3] and state.output is None
    torch.testing.assert_close(latents, torch.full_like(latents, 0.25), atol=1e-3, rtol=0)
