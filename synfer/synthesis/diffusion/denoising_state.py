"""What is known while faces are denoised."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from synfer.networks.prediction_type import PredictionType
from synfer.synthesis.diffusion.prediction import output_for, predict_clean
from synfer.synthesis.diffusion.samplers import Sampler
from synfer.synthesis.request import SamplingSettings, SynthesisRequest


class Network(Protocol):
    """ε, v or x0 prediction: latents (B, C, h, w), timestep, text (B, L, D), AU tokens (B, R, D) → (B, C, h, w).

    A distilled one takes the guidance scale too, 1 where it is left out.
    """

    def __call__(self, latents: Tensor, timestep: Tensor | int, text: Tensor, au: Tensor, scale: float = 1.0) -> Tensor:
        """Returns the network's output (B, C, h, w)."""


@dataclass
class DenoisingState:
    """Everything that denoising n faces needs; hooks read and change it.

    Attributes:
        request: what was asked.
        settings: how to denoise.
        network: the diffusion network.
        encode_text: captions → text tokens (n, L, D).
        image_size: side of the images in pixels.
        encode: images in [−1, 1] → latents.
        decode: latents → images in about [−1, 1], differentiable.
        prediction: what the network predicts.
        sampler: the steps.
        latents: (n, C, h, w).
        text: text tokens of the captions (n, L, D): semantic guidance moves them.
        null_text: text tokens of the negative prompt (n, L, D).
        au: AU tokens (n, R, D), which depend on no step.
        null_au: unconditional AU tokens (n, R, D).
        codec_fingerprint: names the codec, so that a classifier of other latents is noticed.
        network_fingerprint: names the whole diffusion model, weights and all that decides its outputs beside them.
        autocast: makes the context that network calls run in.
        hears_scale: the network takes the guidance scale itself: its output is guided, and needs no unconditional one.
        checkpointing: makes the context in which the network recomputes its activations in a backward pass, or not.
        first_step: denoising starts here (partial inversion sets it above 0).
        step: current step, 0 … num_steps − 1.
        conditional_output: the network's conditional output at this step where a hook has already computed it.
        conditional_rows: bool (n,), samples whose conditional output that is; None = all of them.
        output: (n, C, h, w), the output under classifier-free guidance at this step, once it is known: an
            :class:`~synfer.synthesis.hooks.OutputHook` may change it before the sampler takes it.
    """

    request: SynthesisRequest
    settings: SamplingSettings
    network: Network
    encode_text: Callable[[list[str]], Tensor]
    image_size: int
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    prediction: PredictionType
    sampler: Sampler
    latents: Tensor
    text: Tensor
    null_text: Tensor
    au: Tensor
    null_au: Tensor
    codec_fingerprint: Callable[[], str] = str
    network_fingerprint: Callable[[], str] = str
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    hears_scale: bool = False
    checkpointing: Callable[[bool], AbstractContextManager[Any]] = nullcontext
    first_step: int = 0
    step: int = 0
    conditional_output: Tensor | None = None
    conditional_rows: Tensor | None = None
    output: Tensor | None = None

    @property
    def timestep(self) -> int:
        """The training timestep of the current step."""
        return int(self.sampler.timesteps[self.step])

    def predict(self, text: Tensor, au: Tensor, latents: Tensor | None = None) -> Tensor:
        """Runs the network at the current step: float32 (B, C, h, w)."""
        noisy = self.latents if latents is None else latents
        scale = {"scale": self.settings.scale_at(self.step)} if self.hears_scale else {}
        with self.autocast():
            return self.network(noisy, self.timestep, text, au, **scale).float()

    def clean(self, output: Tensor, latents: Tensor | None = None) -> Tensor:
        """Returns x̂0 at the current step from an output, for all samples or those whose ``latents`` these are."""
        noisy = self.latents if latents is None else latents
        return predict_clean(output, noisy, *self.levels, self.prediction)

    def output_for(self, clean: Tensor, latents: Tensor) -> Tensor:
        """Returns the output that predicts these x̂0, (m, C, h, w), of samples with these ``latents``."""
        return output_for(clean, latents, *self.levels, self.prediction)

    @property
    def levels(self) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ) at the current step, on the device of the latents."""
        signal, noise = self.sampler.noise_levels(self.step)[0]
        return signal.to(self.latents.device), noise.to(self.latents.device)
