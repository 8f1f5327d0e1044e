from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from datamodules.readers import DrawnReader
from lightning_modules.generator import ExpressionGenerator
from synfer.faces.captions import caption_for
from synfer.networks.au_adapter import embed_action_units
from synfer.synthesis.diffusion.denoising import denoise
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.inversion import ddim_invert
from tests.fixtures.tiny_generator import NAMES, request_for, save_base, scaled_weights, state_for, tiny_generator


@pytest.fixture(scope="module", params=["v_prediction", "epsilon"])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExpressionGenerator:
    """The small model (v, trailing steps, zero terminal SNR), and one on Stable Diffusion's schedule (ε, leading)."""
    if request.param == "v_prediction":
        return scaled_weights(tiny_generator(), 2.0)
    return scaled_weights(tiny_generator(base=str(save_base(tmp_path_factory.mktemp("base")))), 2.0)


def clean_latents(state: DenoisingState) -> torch.Tensor:
    return 0.8 * torch.randn(state.latents.shape, generator=torch.Generator().manual_seed(5))


def error_after_return(
    generator: ExpressionGenerator, steps: int, inverted: int, fixed_point_iterations: int, shift: int = 0
) -> float:
    """Inverts, samples at CFG 1 and returns the relative error; ``shift`` moves the timesteps of the inversion."""
    state = state_for(generator, request_for(["happy"], num_steps=steps, guidance_scale=1.0))
    clean = clean_latents(state)
    timesteps = state.sampler.timesteps
    state.sampler.timesteps = timesteps + shift
    state.latents = ddim_invert(state, clean, inverted, fixed_point_iterations)
    state.sampler.timesteps = timesteps
    state.first_step = steps - inverted
    return float((denoise(state) - clean).pow(2).mean().sqrt() / clean.pow(2).mean().sqrt())


@pytest.mark.parametrize(("steps", "inverted"), [(20, 10), (10, 7), (10, 1)])
def test_inverting_and_sampling_returns_the_latents(steps: int, inverted: int, generator: ExpressionGenerator) -> None:
    assert error_after_return(generator, steps, inverted, fixed_point_iterations=6) < 1e-3
    assert error_after_return(generator, steps, inverted, fixed_point_iterations=0) < 0.2


def test_faces_come_back_from_a_trained_model() -> None:
    """50 steps, 35 of them inverted, CFG 1: at least 35 dB, as plain inversion and better with a refinement."""
    reader = DrawnReader({"train": 256}, image_size=32, label_space=list(NAMES), zoom=1.5, variety=0.5)
    table = reader.read("train")
    pictures = torch.nn.functional.avg_pool2d(table.images.batch(np.arange(256)).float() / 127.5 - 1, 2)
    generator = trained_on(pictures, table.label)
    names = [NAMES[code] for code in table.label[:8]]
    state = state_for(generator, request_for(names, num_steps=50, guidance_scale=1.0))
    clean = generator.model.codec.encode(pictures[:8])
    decibels = []
    for fixed_point_iterations in (0, 1):
        state.latents = ddim_invert(state, clean, 35, fixed_point_iterations)
        assert (state.latents - clean).pow(2).mean() > 0.05  # noise has come in: there is something to undo
        state.first_step = 15
        error = (generator.model.codec.decode(denoise(state)) - pictures[:8]).pow(2).mean((1, 2, 3)) / 4
        decibels.append(float(-10 * error.log10().max()))
    assert 35 <= decibels[0] < decibels[1]


def trained_on(pictures: torch.Tensor, label: np.ndarray) -> ExpressionGenerator:
    """Trains the tiny generator for a few seconds; its loss must have fallen."""
    generator = tiny_generator(scheduler={"prediction_type": "v_prediction"}, learning_rate=3e-3)
    optimizer = torch.optim.AdamW(generator.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(0)
    latents = generator.model.codec.encode(pictures)
    au = torch.full((64, len(generator.au_names)), torch.nan)
    empty = embed_action_units(au, generator.region_masks)
    losses = []
    for _ in range(150):
        rows = torch.randint(len(latents), (64,), generator=random)
        captions = [caption_for(NAMES[code]) for code in label[rows.numpy()]]
        loss = generator._loss(latents[rows], generator.synthesiser.encode_text(captions), empty, random)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) / 20 < 0.75 * sum(losses[:5]) / 5
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("steps", [7, 12])
def test_steps_that_do_not_divide_the_schedule_return_it_too(steps: int, generator: ExpressionGenerator) -> None:
    assert error_after_return(generator, steps, steps // 2, fixed_point_iterations=6) < 1e-3


def test_shifted_timesteps_do_not_return_it(generator: ExpressionGenerator) -> None:
    right = error_after_return(generator, 10, 3, fixed_point_iterations=4)
    for shift in (-20, -1, 1, 20):
        assert error_after_return(generator, 10, 3, fixed_point_iterations=4, shift=shift) > 3 * max(right, 1e-4)


def test_each_refinement_comes_closer(generator: ExpressionGenerator) -> None:
    errors = [error_after_return(generator, 10, 6, fixed_point_iterations=n) for n in (0, 1, 2, 4)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.2 * errors[0]


def test_inversion_leaves_the_state_alone_and_ends_noisy(generator: ExpressionGenerator) -> None:
    state = state_for(generator, request_for(num_steps=20))
    clean, before = clean_latents(state), state.latents.clone()
    levels = [ddim_invert(state, clean, n) for n in (1, 10, 18)]
    assert torch.equal(state.latents, before) and state.first_step == 0 and state.step == 0
    similarity = [float(torch.cosine_similarity(x.flatten(), clean.flatten(), dim=0)) for x in levels]
    assert similarity == sorted(similarity, reverse=True) and similarity[0] > 0.9 > similarity[-1]


def test_each_face_is_inverted_by_itself(generator: ExpressionGenerator) -> None:
    whole = state_for(generator, request_for(["happy", "sad", "neutral"], num_steps=10))
    clean = clean_latents(whole)
    together = ddim_invert(whole, clean, 6, 1)
    alone = state_for(generator, request_for(["sad"], first_id=1, num_steps=10))
    torch.testing.assert_close(ddim_invert(alone, clean[1:2], 6, 1)[0], together[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("inverted", [0, 11])
def test_number_of_steps_out_of_range(inverted: int, generator: ExpressionGenerator) -> None:
    state = state_for(generator, request_for(num_steps=10))
    with pytest.raises(ValueError, match=f"layout.num_inverted: found {inverted}, expected 1 … 10 sampling steps"):
        ddim_invert(state, clean_latents(state), inverted)


@pytest.fixture
def pure_noise_state() -> Iterator[DenoisingState]:
    return state_for(tiny_generator(), request_for(num_steps=10))


def test_a_step_of_pure_noise_cannot_be_inverted(pure_noise_state: DenoisingState) -> None:
    with pytest.raises(ValueError, match=r"layout.num_inverted: found 10.*pure noise.*at most 9"):
        ddim_invert(pure_noise_state, clean_latents(pure_noise_state), 10)
