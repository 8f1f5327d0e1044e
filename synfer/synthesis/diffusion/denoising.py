"""The denoising loop: a network, a diffusers scheduler, classifier-free guidance and hooks between the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from synfer.synthesis.diffusion.prediction import PredictionType, predict_clean, signal_and_noise
from synfer.synthesis.request import SamplingSettings, SynthesisRequest


class Network(Protocol):
    """ε, v or x0 prediction: latents (B, C, h, w), timestep, text (B, L, D), AU tokens (B, R, D) → (B, C, h, w)."""

    def __call__(self, latents: Tensor, timestep: Tensor | int, text: Tensor, au: Tensor) -> Tensor: ...


@dataclass
class DenoisingState:
    """Everything that is known while n faces are made; hooks read and change it.

    Attributes:
        request: what was asked.
        settings: how to denoise.
        network: the diffusion network.
        encode_text: captions → text tokens (n, L, D).
        image_size: side of the images in pixels.
        encode: images in [−1, 1] → latents.
        decode: latents → images in about [−1, 1], differentiable.
        prediction: what the network predicts.
        scheduler: diffusers scheduler, timesteps set.
        label: int64 (n,), intended expression in the label space of the generator.
        label_space: names.
        latents: (n, C, h, w).
        text: text tokens of the captions (n, L, D): semantic guidance moves them.
        null_text: text tokens of the negative prompt (n, L, D).
        au: AU tokens (n, R, D), which depend on no step.
        null_au: unconditional AU tokens (n, R, D).
        codec_fingerprint: names the codec, so that a classifier of other latents is noticed.
        autocast: makes the context that network calls run in.
        checkpointing: makes the context in which the network recomputes its activations in a backward pass, or not.
        first_step: denoising starts here (partial inversion sets it above 0).
        step: current step, 0 … num_steps − 1.
        conditional_output: the network's conditional output at this step where a hook has already computed it.
        conditional_rows: bool (n,), samples whose conditional output that is; None = all of them.
        soft_label: (n, K), final label.
        kept: bool (n,).
        layout_source: n sample ids.
        votes: voter → (n, K).
        images: uint8 (n, 3, H, W), set at the end.
    """

    request: SynthesisRequest
    settings: SamplingSettings
    network: Network
    encode_text: Callable[[list[str]], Tensor]
    image_size: int
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    prediction: PredictionType
    scheduler: Any
    label: Tensor
    label_space: tuple[str, ...]
    latents: Tensor
    text: Tensor
    null_text: Tensor
    au: Tensor
    null_au: Tensor
    codec_fingerprint: Callable[[], str] = str
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    checkpointing: Callable[[bool], AbstractContextManager[Any]] = nullcontext
    first_step: int = 0
    step: int = 0
    conditional_output: Tensor | None = None
    conditional_rows: Tensor | None = None
    soft_label: Tensor = field(default_factory=lambda: torch.empty(0))
    kept: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    layout_source: list[str] = field(default_factory=list)
    votes: dict[str, Tensor] = field(default_factory=dict)
    images: Tensor | None = None

    @property
    def timestep(self) -> int:
        """The training timestep of the current step."""
        return int(self.scheduler.timesteps[self.step])

    def predict(self, text: Tensor, au: Tensor, latents: Tensor | None = None) -> Tensor:
        """Runs the network at the current step: float32 (B, C, h, w)."""
        with self.autocast():
            return self.network(self.latents if latents is None else latents, self.timestep, text, au).float()

    def clean(self, output: Tensor, latents: Tensor | None = None) -> Tensor:
        """Returns x̂0 at the current step from an output, for all samples or those whose ``latents`` these are."""
        noisy = self.latents if latents is None else latents
        signal, noise = signal_and_noise(self.scheduler.alphas_cumprod, self.timestep, noisy)
        return predict_clean(output, noisy, signal, noise, self.prediction)


class SynthesisHook(Protocol):
    """What may act on synthesis; ``SynthesisCallback`` is its Lightning form."""

    def on_synthesis_start(self, state: DenoisingState) -> None: ...

    def on_denoising_step(self, state: DenoisingState) -> None: ...

    def on_synthesis_end(self, state: DenoisingState) -> None: ...


def guided_output(state: DenoisingState) -> Tensor:
    """Returns the network's output under classifier-free guidance: uncond + w · (cond − uncond).

    One pass over all that is still to be computed: the unconditional half where the scale of this step is not 1, and
    the conditional outputs that no hook has left behind.
    """
    scale = state.settings.scale_at(state.step)
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
def denoise(state: DenoisingState, hooks: Sequence[SynthesisHook] = ()) -> Tensor:
    """Runs the loop and returns the final latents (n, C, h, w); ``state`` is changed in place.

    Order within step i: every hook's ``on_denoising_step`` (it may move ``state.text`` for the steps after this one and
    leave ``state.conditional_output``), then the guided output, then the scheduler's step.
    """
    for step in range(state.first_step, len(state.scheduler.timesteps)):
        state.step = step
        state.conditional_output = state.conditional_rows = None
        for hook in hooks:
            hook.on_denoising_step(state)
        output = guided_output(state)
        state.latents = state.scheduler.step(output, state.scheduler.timesteps[step], state.latents).prev_sample
    state.conditional_output = state.conditional_rows = None
    return state.latents
