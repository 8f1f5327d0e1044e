"""DDIM inversion: from a clean latent back to the noise that would produce it (Song et al. 2021).

One sampling step from x_t to x_p reads ε = ε_θ(x_t, t) and sets x_p = a_p/a_t · (x_t − s_t·ε) + s_p·ε. Solved for x_t
it is x_t = a_t/a_p · (x_p − s_p·ε) + s_t·ε, where ε depends on the unknown x_t. Plain inversion takes ε at x_p instead;
each refinement takes it at the x_t found so far (a fixed-point iteration), which converges to the exact inverse.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from synfer.synthesis.diffusion.denoising import DenoisingState
from synfer.synthesis.diffusion.prediction import predict_noise, signal_and_noise


@torch.no_grad()
def ddim_invert(state: DenoisingState, clean: Tensor, num_inverted: int, fixed_point_iterations: int = 0) -> Tensor:
    """Inverts clean latents through the last ``num_inverted`` steps of the sampling schedule.

    Runs at guidance scale 1 (inversion at a high CFG scale diverges) with the conditional text and AUs, deterministic.

    Args:
        state: its scheduler fixes the timesteps; nothing in it is changed.
        clean: latents x0, (n, C, h, w).
        num_inverted: how many steps the sampler will then have to run, 1 … num_steps.
        fixed_point_iterations: of each step, beyond the plain one; each costs a network pass.

    Returns:
        Latents (n, C, h, w) at the noise level of ``scheduler.timesteps[num_steps − num_inverted]``.

    Raises:
        ValueError: ``num_inverted`` out of range, or so large that it includes a step of pure noise.
    """
    timesteps = state.scheduler.timesteps.tolist()
    if not 1 <= num_inverted <= len(timesteps):
        raise ValueError(f"layout.num_inverted: found {num_inverted}, expected 1 … {len(timesteps)} sampling steps")
    scheduler, alphas = state.scheduler, state.scheduler.alphas_cumprod
    first = len(timesteps) - num_inverted
    if float(alphas[timesteps[first]]) < 1e-6:  # zero terminal SNR: whatever is inverted, the same noise comes out
        raise ValueError(
            f"layout.num_inverted: found {num_inverted}, which includes a step of pure noise that keeps nothing of the "
            f"face, expected at most {num_inverted - 1}"
        )
    # The sampler's last step ends at this noise level, which need not be zero.
    final = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0), device=clean.device).float()
    # diffusers' DDIM goes down by T // n; where n does not divide T, that is not quite the next timestep.
    stride = scheduler.config.num_train_timesteps // len(timesteps)
    below = [t - stride for t in timesteps] if isinstance(scheduler, DDIMScheduler) else [*timesteps[1:], -1]
    latents = clean
    for index in reversed(range(first, len(timesteps))):
        timestep = timesteps[index]
        signal, noise = signal_and_noise(alphas, timestep, latents)
        if below[index] >= 0:
            signal_before, noise_before = signal_and_noise(alphas, below[index], latents)
        else:
            signal_before, noise_before = final.sqrt(), (1 - final).sqrt()
        noisier = latents
        for _ in range(1 + fixed_point_iterations):
            with state.autocast():
                output = state.network(noisier, timestep, state.text, state.au).float()
            eps = predict_noise(output, noisier, signal, noise, state.prediction)
            noisier = signal / signal_before * (latents - noise_before * eps) + noise * eps
        latents = noisier
    return latents
