"""The denoising loop: a network, a sampler, classifier-free guidance and hooks between the steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.hooks import DenoisingHook, OutputHook


def guided_output(state: DenoisingState) -> Tensor:
    """Returns the network's output under classifier-free guidance: uncond + w · (cond − uncond).

    One pass over all that is still to be computed: the unconditional half where the scale of this step is not 1 and the
    network does not hear it, and the conditional outputs that no hook has left behind.
    """
    scale = 1 if state.hears_scale else state.settings.scale_at(state.step)
    left = state.conditional_output
    if left is None:
        open_rows = torch.arange(len(state.latents), device=state.latents.device)
    elif state.conditional_rows is None:
        open_rows = torch.empty(0, dtype=torch.int64, device=state.latents.device)
    else:
        open_rows = (~state.conditional_rows).nonzero()[:, 0]
    text, au, latents = state.text[open_rows], state.au[open_rows], state.latents[open_rows]
    if scale != 1:
        text = torch.cat([state.null_text, text])
        au = torch.cat([state.null_au, au])
        latents = torch.cat([state.latents, latents])
    computed = state.predict(text, au, latents) if len(text) else latents
    conditional = computed[len(computed) - len(open_rows) :]
    if left is not None:
        conditional = left.index_copy(0, open_rows, conditional)
    if scale == 1:
        return conditional
    unconditional = computed[: len(state.latents)]
    return unconditional + scale * (conditional - unconditional)


@torch.no_grad()
def denoise(state: DenoisingState, hooks: Sequence[DenoisingHook] = ()) -> Tensor:
    """Runs the loop and returns the final latents (n, C, h, w); ``state`` is changed in place.

    Order within step i: every hook's ``on_denoising_step`` (it may move ``state.text`` for the steps after this one and
    leave ``state.conditional_output``), then the guided output, every hook's ``on_guided_output`` where it has one (it
    may change ``state.output``), then the sampler's step.
    """
    on_output = [hook for hook in hooks if isinstance(hook, OutputHook)]
    for step in range(state.first_step, len(state.sampler.timesteps)):
        state.step = step
        state.conditional_output = state.conditional_rows = None
        for hook in hooks:
            hook.on_denoising_step(state)
        state.output = guided_output(state)
        for each in on_output:
            each.on_guided_output(state)
        state.latents = state.sampler.step(state.output, step, state.latents)
    state.conditional_output = state.conditional_rows = state.output = None
    return state.latents
