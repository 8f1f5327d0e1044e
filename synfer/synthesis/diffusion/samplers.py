"""How denoising goes from one noise level to the next: the named samplers.

A sampler lives for one synthesis: some remember the steps before. To add one, write a class with the members of
:class:`Sampler` and name it in :data:`SAMPLERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from synfer.networks.prediction_type import PredictionType
from synfer.synthesis.diffusion.prediction import predict_clean, predict_noise

Level = tuple[Tensor, Tensor]
"""√ᾱ and √(1 − ᾱ), float32: x = √ᾱ · x0 + √(1 − ᾱ) · ε. A sampler's are without dimensions, on the CPU."""


class Sampler(Protocol):
    """The steps of one synthesis.

    Attributes:
        timesteps: int64 (num_steps,), falling: the training timestep at which the network runs in each step.
        initial_scale: what noise of unit variance is multiplied by before the first step.
    """

    timesteps: Tensor
    initial_scale: float

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        """Takes latents x, (n, C, h, w), through step i with the network's output, and returns the next ones."""
        ...

    def noise_levels(self, i: int) -> tuple[Level, Level]:
        """Returns the noise levels at which step i begins and ends."""
        ...


class _FromDiffusers:
    """A scheduler of diffusers as a sampler.

    Args:
        scheduler: a new one, whose timesteps are not set.
        num_steps: denoising steps.
    """

    def __init__(self, scheduler: Any, num_steps: int) -> None:
        scheduler.set_timesteps(num_steps)
        self._scheduler = scheduler
        self.timesteps: Tensor = scheduler.timesteps
        self.initial_scale = float(scheduler.init_noise_sigma)

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        """Takes the scheduler's step."""
        return self._scheduler.step(output, self.timesteps[i], x).prev_sample

    def noise_levels(self, i: int) -> tuple[Level, Level]:
        """Returns the levels of timestep i and of where its step ends."""
        alphas, below = self._scheduler.alphas_cumprod, self._below(i)
        end = alphas[below] if below >= 0 else self._final()
        return _level(alphas[int(self.timesteps[i])]), _level(end)

    def _below(self, i: int) -> int:
        """Returns the training timestep at which step i ends; negative at the end of the schedule."""
        return int(self.timesteps[i + 1]) if i + 1 < len(self.timesteps) else -1

    def _final(self) -> Tensor:
        """Returns ᾱ at the end of the last step."""
        return torch.ones(())


class DDIM(_FromDiffusers):
    """Deterministic DDIM (Song et al. 2021).

    Args:
        schedule: config of a diffusers scheduler.
        num_steps: denoising steps.
    """

    def __init__(self, schedule: Mapping[str, Any], num_steps: int) -> None:
        from diffusers import DDIMScheduler

        super().__init__(DDIMScheduler.from_config(schedule), num_steps)

    def _below(self, i: int) -> int:
        # diffusers' DDIM goes down by T // n; where n does not divide T, that is not quite the next timestep.
        return int(self.timesteps[i]) - self._scheduler.config.num_train_timesteps // len(self.timesteps)

    def _final(self) -> Tensor:
        # The last step ends at this noise level, which need not be zero.
        return torch.as_tensor(self._scheduler.final_alpha_cumprod)


class DPMSolver(_FromDiffusers):
    """DPM-Solver++ of second order, multistep (Lu et al. 2022, arXiv 2211.01095), down to no noise at all.

    Args:
        schedule: config of a diffusers scheduler.
        num_steps: denoising steps.
    """

    def __init__(self, schedule: Mapping[str, Any], num_steps: int) -> None:
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler.from_config(
            schedule, algorithm_type="dpmsolver++", final_sigmas_type="zero"
        )
        super().__init__(scheduler, num_steps)


def few_step_timesteps(num_train_timesteps: int, steps: int) -> Tensor:
    """Returns the timesteps of the few-step sampler, int64 (steps,), falling: from the noisiest, evenly.

    Those of ``steps`` are among those of ``k · steps``.

    Raises:
        ValueError: more steps than timesteps.
    """
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"few-step sampler: found {steps} steps, expected 1 … {num_train_timesteps}")
    left = torch.arange(steps, 0, -1, dtype=torch.int64)
    return left * num_train_timesteps // steps - 1


def ddim_step(output: Tensor, noisy: Tensor, begin: Level, end: Level, prediction: PredictionType) -> Tensor:
    """Returns the latents (B, C, h, w) at the level where a deterministic DDIM step ends (Song et al. 2021)."""
    clean = predict_clean(output, noisy, *begin, prediction)
    eps = predict_noise(output, noisy, *begin, prediction)
    return end[0] * clean + end[1] * eps


class FewStep:
    """Deterministic DDIM from the noisiest timestep down to no noise at all, in steps of equal length.

    What a network is distilled on to few steps: the levels at which a step begins and ends are exactly those of the
    timesteps, whatever the spacing and the last level of the schedule.

    Args:
        schedule: config of a diffusers scheduler.
        num_steps: denoising steps.
    """

    initial_scale = 1.0

    def __init__(self, schedule: Mapping[str, Any], num_steps: int) -> None:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(schedule)
        self._alphas: Tensor = scheduler.alphas_cumprod
        self._prediction: PredictionType = scheduler.config.prediction_type
        self.timesteps = few_step_timesteps(len(self._alphas), num_steps)

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        """Takes step i."""
        begin, end = ((a.to(x.device), s.to(x.device)) for a, s in self.noise_levels(i))
        return ddim_step(output, x, begin, end, self._prediction)

    def noise_levels(self, i: int) -> tuple[Level, Level]:
        """Returns the levels of timestep i and of the next; after the last, none."""
        last = i + 1 == len(self.timesteps)
        end = torch.ones(()) if last else self._alphas[int(self.timesteps[i + 1])]
        return _level(self._alphas[int(self.timesteps[i])]), _level(end)


SAMPLERS: dict[str, Callable[[Mapping[str, Any], int], Sampler]] = {
    "ddim": DDIM,
    "dpm_solver++": DPMSolver,
    "few_step": FewStep,
}
"""``sampling.scheduler`` → sampler, made from (config of the noise schedule, number of steps)."""


def make_sampler(name: str, schedule: Mapping[str, Any], num_steps: int) -> Sampler:
    """Returns a sampler for one synthesis.

    Args:
        name: one of :data:`SAMPLERS`.
        schedule: config of a diffusers scheduler.
        num_steps: denoising steps.

    Raises:
        ValueError: more steps than the schedule has timesteps.
    """
    if num_steps > schedule["num_train_timesteps"]:
        raise ValueError(f"sampling.num_steps: found {num_steps}, expected at most {schedule['num_train_timesteps']}")
    return SAMPLERS[name](schedule, num_steps)


def _level(alpha: Tensor) -> Level:
    alpha = alpha.to("cpu", torch.float32)
    return alpha.sqrt(), (1 - alpha).sqrt()
