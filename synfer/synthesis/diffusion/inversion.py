"""DDIM inversion: from a clean latent back to the noise that would produce it (Song et al. 2021).

One sampling step from x_t to x_p reads ε = ε_θ(x_t, t) and sets x_p = a_p/a_t · (x_t − s_t·ε) + s_p·ε. Solved for x_t
it is x_t = a_t/a_p · (x_p − s_p·ε) + s_t·ε, where ε depends on the unknown x_t. Plain inversion takes ε at x_p instead;
each refinement takes it at the x_t found so far (a fixed-point iteration), which converges to the exact inverse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.prediction import predict_noise


@torch.no_grad()
def ddim_invert(state: DenoisingState, clean: Tensor, num_inverted: int, fixed_point_iterations: int = 0) -> Tensor:
    """Inverts clean latents through the last ``num_inverted`` steps of the sampling schedule.

    Runs at guidance scale 1 (inversion at a high CFG scale diverges) with the conditional text and AUs, deterministic.

    Args:
        state: its sampler fixes the timesteps; nothing in it is changed.
        clean: latents x0, (n, C, h, w).
        num_inverted: how many steps the sampler will then have to run, 1 … num_steps.
        fixed_point_iterations: of each step, beyond the plain one; each costs a network pass.

    Returns:
        Latents (n, C, h, w) at the noise level of ``sampler.timesteps[num_steps − num_inverted]``.

    Raises:
        ValueError: ``num_inverted`` out of range, or so large that it includes a step of pure noise.
    """
    timesteps = state.sampler.timesteps.tolist()
    if not 1 <= num_inverted <= len(timesteps):
        raise ValueError(f"layout.num_inverted: found {num_inverted}, expected 1 … {len(timesteps)} sampling steps")
    first = len(timesteps) - num_inverted
    if float(state.sampler.noise_levels(first)[0][0]) < 1e-3:  # zero terminal SNR: whatever is inverted, the same comes
        raise ValueError(
            f"layout.num_inverted: found {num_inverted}, which includes a step of pure noise that keeps nothing of the "
            f"face, expected at most {num_inverted - 1}"
        )
    latents = clean
    for index in reversed(range(first, len(timesteps))):
        begin, end = state.sampler.noise_levels(index)
        signal, noise, signal_before, noise_before = (part.to(latents.device) for part in (*begin, *end))
        noisier = latents
        for _ in range(1 + fixed_point_iterations):
            with state.autocast():
                output = state.network(noisier, timesteps[index], state.text, state.au).float()
            eps = predict_noise(output, noisier, signal, noise, state.prediction)
            noisier = signal / signal_before * (latents - noise_before * eps) + noise * eps
        latents = noisier
    return latents
