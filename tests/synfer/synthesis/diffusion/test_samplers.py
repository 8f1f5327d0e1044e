"""Every named sampler: its noise levels are those that its steps end on, and denoising needs no more of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from synfer.synthesis.diffusion.inversion import ddim_invert
from synfer.synthesis.diffusion.samplers import DDIM, SAMPLERS, Level, make_sampler
from synfer.synthesis.request import SamplingSettings
from tests.fixtures.tiny_generator import SD_SCHEDULE, request_for, state_for, tiny_generator

SCHEDULE = DDIMScheduler(**SD_SCHEDULE).config
"""Stable Diffusion's own: ε, from nearly pure noise to nearly none."""


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_steps", [10, 17])
def test_true_noise_is_followed_from_level_to_level(name: str, num_steps: int) -> None:
    """Given the exact ε of one known face, each step must end on that face at the level it says."""
    sampler = make_sampler(name, SCHEDULE, num_steps)
    clean, eps = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    signal, noise = sampler.noise_levels(0)[0]
    assert len(sampler.timesteps) == num_steps and float(signal) < 0.12
    x = signal * clean + noise * eps
    for i in range(num_steps):
        x = sampler.step(eps, i, x)
        signal, noise = sampler.noise_levels(i)[1]
        torch.testing.assert_close(x, signal * clean + noise * eps, atol=2e-3, rtol=0)
    assert float(signal) > 0.999


@pytest.mark.parametrize("name", SAMPLERS)
def test_too_many_steps_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"sampling.num_steps: found 1001, expected at most 1000"):
        make_sampler(name, SCHEDULE, 1001)


class Plain:
    """DDIM written out, with the members of a sampler and nothing else."""

    initial_scale = 1.0

    def __init__(self, schedule: Mapping[str, Any], num_steps: int) -> None:
        self.of = DDIM(schedule, num_steps)
        self.timesteps: Tensor = self.of.timesteps

    def noise_levels(self, i: int) -> tuple[Level, Level]:
        return self.of.noise_levels(i)

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        (signal, noise), (signal_after, noise_after) = self.noise_levels(i)
        clean, eps = signal * x - noise * output, signal * output + noise * x  # of v
        return signal_after * clean + noise_after * eps


def test_a_new_sampler_is_a_class_and_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "plain", Plain)
    generator = tiny_generator()
    own, known = (generator.synthesise(request_for(num_steps=6, scheduler=name)).images for name in ("plain", "ddim"))
    assert (own.int() - known.int()).abs().amax() <= 1
    state = state_for(generator, request_for(num_steps=6, scheduler="plain"))
    assert ddim_invert(state, state.latents, 3).shape == state.latents.shape
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"found 'plain', expected 'ddim' or 'dpm_solver\+\+'"):
        SamplingSettings(scheduler="plain")
