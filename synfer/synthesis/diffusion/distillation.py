"""What a student of a diffusion model is to give: its teacher's guided output, or where several of its steps lead.

Guidance distillation: one pass that knows the scale w gives uncond + w · (cond − uncond) (Meng et al., CVPR 2023, arXiv
2210.03142, their first stage). Step distillation: one DDIM step ends where several of the teacher's end (progressive
distillation, Salimans and Ho, ICLR 2022, arXiv 2202.00512; theirs are two at a time).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synfer.networks.prediction_type import PredictionType
from synfer.synthesis.diffusion.prediction import signal_and_noise
from synfer.synthesis.diffusion.samplers import Level, ddim_step, few_step_timesteps

GuidedTeacher = Callable[[Tensor, Tensor], Tensor]
"""Latents x_t (B, C, h, w), timesteps int64 (B,) → the teacher's output under guidance (B, C, h, w)."""


def draw_scales(n: int, largest: float, generator: torch.Generator) -> Tensor:
    """Returns n guidance scales drawn evenly from 1 to the largest, float32 (n,)."""
    return 1 + (largest - 1) * torch.rand(n, generator=generator, device=generator.device)


def clean_that_leads_to(ended: Tensor, noisy: Tensor, begin: Level, end: Level) -> Tensor:
    """Returns the x̂0 (B, C, h, w) with which one DDIM step from ``noisy`` ends at ``ended``; levels of each sample."""
    share = end[1] / begin[1]
    return (ended - share * noisy) / (end[0] - share * begin[0])


def few_step_target(
    teacher: GuidedTeacher,
    noisy: Tensor,
    position: Tensor,
    steps: int,
    substeps: int,
    alphas_cumprod: Tensor,
    prediction: PredictionType,
) -> Tensor:
    """Returns the x̂0 of one of a few steps that leads where ``substeps`` of the teacher's lead, (B, C, h, w).

    Args:
        teacher: its guided output.
        noisy: x_t at the timesteps of ``position``, (B, C, h, w).
        position: which of the steps each sample takes, int64 (B,), 0 … steps − 1.
        steps: of the student's sampler.
        substeps: of the teacher in one of them, at least 1.
        alphas_cumprod: ᾱ of all training timesteps.
        prediction: what the teacher predicts.
    """
    grid = few_step_timesteps(len(alphas_cumprod), steps * substeps)
    grid = torch.cat([grid, grid.new_tensor([len(alphas_cumprod)])]).to(noisy.device)
    alphas = torch.cat([alphas_cumprod, torch.ones(1).to(alphas_cumprod)])  # after the last step there is no noise
    first = position * substeps
    x = noisy
    for i in range(substeps):
        begin, end = (signal_and_noise(alphas, grid[first + i + j], noisy) for j in (0, 1))
        x = ddim_step(teacher(x, grid[first + i]), x, begin, end, prediction)
    begin, end = (signal_and_noise(alphas, grid[first + j], noisy) for j in (0, substeps))
    return clean_that_leads_to(x, noisy, begin, end)
