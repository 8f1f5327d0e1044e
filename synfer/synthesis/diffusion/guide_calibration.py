"""Fits how far a guide is to be believed at each noise level, on training faces whose expression is known.

A guide has learned from finished faces, and is asked about x̂0, what the network predicts from x_t: blurred where there
is much noise, so that it is surer, or less sure, than it is right. One temperature per noise level makes its
probabilities mean what they say there (Guo et al., ICML 2017, on the guide's view of x̂0). What guidance is worth hangs
on how well its classifier is calibrated: Ma et al., arXiv 2310.11311.

x̂0 is predicted without caption and action units: under those of the face the network would paint the expression in, and
the guide be believed for what the caption had said. So p(y | x̂0) is what x_t tells of y.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.faces.face_shape import resize_faces
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.random_streams import Stream
from synfer.networks.temperature import fit_temperature
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.guidance import Guide
from synfer.synthesis.diffusion.prediction import predict_clean
from synfer.synthesis.diffusion.temperature_table import CalibratedLevel

MOST_LEVELS = 10
"""Noise levels of a table; between them it is interpolated."""


@torch.no_grad()
def calibrated_levels(
    state: DenoisingState, guide: Guide, image: Tensor, label: Tensor, on_latents: bool = False, chunk: int = 64
) -> tuple[CalibratedLevel, ...]:
    """Returns the temperatures at the noise levels of a sampler, by noise, ascending; ``state`` is left as it is.

    The noise is the same at all levels and in every run.

    Args:
        state: of any request: its networks, its sampler, its unconditional text and action units.
        guide: the classifier.
        image: uint8 faces (n, 3, H, W).
        label: int64 (n,), what they show, among the guide's classes.
        on_latents: the guide reads x̂0's latents as they are; else images in [0, 1].
        chunk: faces at a time.
    """
    steps = range(len(state.sampler.timesteps))
    chosen = sorted({steps[round(i)] for i in torch.linspace(0, steps[-1], min(MOST_LEVELS, len(steps))).tolist()})
    levels = {}
    logits: dict[int, list[Tensor]] = {step: [] for step in chosen}
    for clean, eps in _noised(state, image, chunk):
        for step in chosen:
            logits[step].append(_opinion(state, guide, clean, eps, step, on_latents))
    for step in chosen:
        noise = round(float(state.sampler.noise_levels(step)[0][1]), 6)
        levels[noise] = _level(noise, torch.cat(logits[step]), label.cpu())
    return tuple(levels[noise] for noise in sorted(levels))


def _noised(state: DenoisingState, image: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives the latents of the faces, (m, C, h, w), and noise for them, part by part."""
    generator = torch.Generator().manual_seed(keyed_seed(Stream.CALIBRATION_NOISE))  # whatever the device and the parts
    for part in image.split(chunk):
        pixels = resize_faces(part.to(state.latents.device).float() / 127.5 - 1, state.image_size)
        clean = state.encode(pixels)
        yield clean, torch.randn(clean.shape, generator=generator).to(clean)


def _opinion(state: DenoisingState, guide: Guide, clean: Tensor, eps: Tensor, step: int, on_latents: bool) -> Tensor:
    """Returns the guide's logits on what the network predicts at a step, float32 (m, K) on the CPU."""
    signal, noise = (part.to(clean.device) for part in state.sampler.noise_levels(step)[0])
    noisy = signal * clean + noise * eps
    text, au = (part[:1].expand(len(noisy), -1, -1) for part in (state.null_text, state.null_au))
    with state.autocast():
        output = state.network(noisy, int(state.sampler.timesteps[step]), text, au).float()
    predicted = predict_clean(output, noisy, signal, noise, state.prediction)
    seen = predicted if on_latents else ((state.decode(predicted) + 1) / 2).clamp(0, 1)
    with state.autocast():
        return guide(seen).float().cpu()


def _level(noise: float, logits: Tensor, label: Tensor) -> CalibratedLevel:
    # Rounded, so that ranks that fit it each for itself agree.
    temperature = float(f"{fit_temperature(logits, label):.4g}")
    return CalibratedLevel(
        noise=noise,
        temperature=temperature,
        accuracy=round(float((logits.argmax(1) == label).double().mean()), 4),
        loss=round(float(F.cross_entropy(logits / temperature, label)), 4),
        loss_before=round(float(F.cross_entropy(logits, label)), 4),
    )
