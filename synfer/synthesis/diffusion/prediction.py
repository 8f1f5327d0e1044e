"""What a diffusion network predicts, turned from one form into another.

With signal a = √ᾱ_t and noise s = √(1 − ᾱ_t), x_t = a·x0 + s·ε and v = a·ε − s·x0 (Salimans and Ho 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from synfer.networks.prediction_type import PredictionType


def signal_and_noise(alphas_cumprod: Tensor, timestep: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns √ᾱ_t and √(1 − ᾱ_t), shaped to broadcast over ``like`` (B, …); ``timestep`` is int or int64 (B,)."""
    alpha = alphas_cumprod.to(like.device, torch.float32)[torch.as_tensor(timestep, device=like.device)]
    alpha = alpha.reshape(-1, *([1] * (like.ndim - 1)))
    return alpha.sqrt(), (1 - alpha).sqrt()


def offset_noise(eps: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Returns noise (B, C, h, w) with a part that is the same all over each channel: ε + share · δ, δ (B, C, 1, 1).

    So that a network learns to change the mean of a picture, which plain noise hardly touches (Guttenberg 2023,
    crosslabs.org/blog/diffusion-with-offset-noise). Nothing is drawn where the share is 0.
    """
    if share == 0:
        return eps
    return eps + share * torch.randn(*eps.shape[:2], 1, 1, generator=generator, device=eps.device)


def predict_clean(output: Tensor, noisy: Tensor, signal: Tensor, noise: Tensor, prediction: PredictionType) -> Tensor:
    """Returns x̂0 from the network's output (for ε: METHOD's x̂0 = (x_t − s·ε) / a)."""
    if prediction == "sample":
        return output
    if prediction == "epsilon":
        return (noisy - noise * output) / signal
    return signal * noisy - noise * output


def predict_noise(output: Tensor, noisy: Tensor, signal: Tensor, noise: Tensor, prediction: PredictionType) -> Tensor:
    """Returns ε̂ from the network's output."""
    if prediction == "sample":
        return (noisy - signal * output) / noise.clamp_min(1e-6)
    if prediction == "epsilon":
        return output
    return signal * output + noise * noisy


def output_for(clean: Tensor, noisy: Tensor, signal: Tensor, noise: Tensor, prediction: PredictionType) -> Tensor:
    """Returns the output that predicts this x̂0: the inverse of :func:`predict_clean`; ``noise`` above 0."""
    if prediction == "sample":
        return clean
    if prediction == "epsilon":
        return (noisy - signal * clean) / noise
    return (signal * noisy - clean) / noise


def training_target(clean: Tensor, eps: Tensor, signal: Tensor, noise: Tensor, prediction: PredictionType) -> Tensor:
    """Returns what the network is trained to predict."""
    if prediction == "sample":
        return clean
    return eps if prediction == "epsilon" else signal * eps - noise * clean


def min_snr_weight(signal: Tensor, noise: Tensor, gamma: float | None, prediction: PredictionType) -> Tensor:
    """Returns the loss weight of each sample by min-SNR-γ (Hang et al., ICCV 2023): (B, …) broadcastable.

    min(SNR, γ) / SNR for ε, min(SNR, γ) / (SNR + 1) for v, min(SNR, γ) for x0; 1 where γ is None.
    """
    if gamma is None:
        return torch.ones_like(signal)
    snr = (signal / noise.clamp_min(1e-6)) ** 2
    clamped = snr.clamp_max(gamma)
    if prediction == "sample":
        return clamped
    return clamped / (snr.clamp_min(1e-6) if prediction == "epsilon" else snr + 1)
