"""Where several steps of a teacher lead, one step of its student is to lead."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from synfer.networks.diffusion import SMALL_SCHEDULER
from synfer.synthesis.diffusion.distillation import draw_scales, few_step_target
from synfer.synthesis.diffusion.prediction import output_for
from synfer.synthesis.diffusion.samplers import FewStep, few_step_timesteps
from tests.fixtures.tiny_generator import SD_SCHEDULE

V, EPSILON = DDIMScheduler.from_config(SMALL_SCHEDULER), DDIMScheduler.from_config(SD_SCHEDULE)


def teacher(x: Tensor, timestep: Tensor) -> Tensor:
    """Some smooth function of latents and timestep."""
    return torch.tanh(x * 0.7 + timestep[:, None, None, None] / 700 - 0.5)


def noisy_latents(n: int) -> Tensor:
    return torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", [V, EPSILON], ids=["v", "epsilon"])
@pytest.mark.parametrize(("steps", "substeps"), [(4, 1), (4, 4), (3, 2)])
def test_one_step_with_the_target_ends_where_the_teachers_steps_end(
    schedule: DDIMScheduler, steps: int, substeps: int
) -> None:
    x = noisy_latents(1)
    fine, coarse = FewStep(schedule.config, steps * substeps), FewStep(schedule.config, steps)
    prediction = schedule.config.prediction_type
    for position in range(steps):
        ended = x
        for i in range(position * substeps, (position + 1) * substeps):
            ended = fine.step(teacher(ended, fine.timesteps[i : i + 1]), i, ended)
        clean = few_step_target(
            teacher, x, torch.tensor([position]), steps, substeps, schedule.alphas_cumprod, prediction
        )
        (signal, noise), _ = coarse.noise_levels(position)
        if prediction == "v_prediction" or float(signal) > 0:
            step = coarse.step(output_for(clean, x, signal, noise, prediction), position, x)
            torch.testing.assert_close(step, ended, atol=2e-4, rtol=1e-3)
        x = ended


def test_each_sample_takes_its_own_step() -> None:
    x, positions = noisy_latents(4), torch.tensor([3, 0, 2, 1])
    together = few_step_target(teacher, x, positions, 4, 2, V.alphas_cumprod, "v_prediction")
    for i in range(4):
        alone = few_step_target(teacher, x[i : i + 1], positions[i : i + 1], 4, 2, V.alphas_cumprod, "v_prediction")
        torch.testing.assert_close(together[i : i + 1], alone)


def test_a_teacher_that_knows_the_face_leads_to_it() -> None:
    """Of a perfect x̂0 the target is that face, at every position."""
    face = noisy_latents(4)

    def perfect(x: Tensor, timestep: Tensor) -> Tensor:
        alpha = V.alphas_cumprod[timestep][:, None, None, None]
        return output_for(face, x, alpha.sqrt(), (1 - alpha).sqrt(), "v_prediction")

    eps = torch.randn(face.shape, generator=torch.Generator().manual_seed(1))
    alpha = V.alphas_cumprod[few_step_timesteps(1000, 4)][:, None, None, None]
    noisy = alpha.sqrt() * face + (1 - alpha).sqrt() * eps
    found = few_step_target(perfect, noisy, torch.arange(4), 4, 3, V.alphas_cumprod, "v_prediction")
    torch.testing.assert_close(found, face, atol=2e-4, rtol=1e-3)


def test_timesteps_of_few_steps_are_among_those_of_more() -> None:
    assert few_step_timesteps(1000, 4).tolist() == [999, 749, 499, 249]
    for steps, substeps in ((4, 4), (3, 5), (7, 2)):
        fine = few_step_timesteps(1000, steps * substeps)
        assert torch.equal(fine[::substeps], few_step_timesteps(1000, steps))
    with pytest.raises(ValueError, match=r"found 1001 steps, expected 1 … 1000"):
        few_step_timesteps(1000, 1001)


def test_scales_are_drawn_evenly_up_to_the_largest() -> None:
    drawn = draw_scales(4000, 5.0, torch.Generator().manual_seed(0))
    assert 1 <= float(drawn.min()) < 1.01 and 4.99 < float(drawn.max()) <= 5
    assert abs(float(drawn.mean()) - 3) < 0.1
