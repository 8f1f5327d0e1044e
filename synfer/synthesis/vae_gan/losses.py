"""The losses of a VAE-GAN, each a pure function; what becomes of them is told in ``training_losses.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Literal["l1", "l2"]

_LARGEST_RATIO = 1e4
_NO_GRADIENT = 1e-6


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Returns ½ (mean relu(1 − real) + mean relu(1 + fake)) (Lim and Ye, arXiv 1705.02894).

    Args:
        real: logits of real faces, (B,).
        fake: logits of made ones, (B,).
    """
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def generator_hinge(fake: Tensor) -> Tensor:
    """Returns −mean(fake), what the decoder lowers against a discriminator that lowers :func:`discriminator_hinge`."""
    return -fake.mean()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns KL(N(mean, exp(log_variance)) ‖ N(0, I)) of each code in nats, (B,) (Kingma and Welling, 1312.6114).

    Args:
        mean: (B, Z).
        log_variance: (B, Z).
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def distance(made: Tensor, real: Tensor, kind: Distance) -> Tensor:
    """Returns the mean absolute ("l1") or squared ("l2") difference over all numbers, in float32.

    Args:
        made: any shape.
        real: the same shape.
        kind: which of the two.
    """
    made, real = made.float(), real.float()
    return F.l1_loss(made, real) if kind == "l1" else F.mse_loss(made, real)


def feature_distance(made: Sequence[Tensor], real: Sequence[Tensor], kind: Distance) -> Tensor:
    """Returns the sum of :func:`distance` over feature maps of a discriminator (Larsen et al., arXiv 1512.09300).

    Args:
        made: maps of made faces, (B, C, h, w) each.
        real: those of the real faces that they are to be like; they get no gradient.
        kind: of the distance.
    """
    return torch.stack([distance(a, b.detach(), kind) for a, b in zip(made, real, strict=True)]).sum()


def relative_distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Returns the mean over feature maps of mean |made − real| ÷ mean |real|: no map outweighs the others by its scale.

    Args:
        made: maps of made faces, (B, C, h, w) each.
        real: those of the real faces that they are to be like; they get no gradient.
    """
    pairs = [(a.float(), b.detach().float()) for a, b in zip(made, real, strict=True)]
    return torch.stack([(a - b).abs().mean() / b.abs().mean().clamp_min(_NO_GRADIENT) for a, b in pairs]).mean()


def r1_penalty(real: Tensor, face: Tensor) -> Tensor:
    """Returns ½ E‖∂ real / ∂ face‖², with gradient (R1 without its γ; Mescheder et al., arXiv 1801.04406).

    Args:
        real: logits of real faces, (B,), each of its own face alone.
        face: what they were computed from, (B, C, H, W), with ``requires_grad``.
    """
    (slope,) = torch.autograd.grad(real.sum(), face, create_graph=True)
    return 0.5 * slope.float().square().sum((1, 2, 3)).mean()


def gradient_ratio(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """Returns ‖∇reconstruction‖ ÷ ‖∇adversarial‖ within [0, 10⁴] (Esser et al., arXiv 2012.09841, eq. 7).

    Args:
        reconstruction: gradient of the reconstruction losses at the decoder's last layer.
        adversarial: gradient of the adversarial loss there.
    """
    ratio = reconstruction.float().norm() / (adversarial.float().norm() + _NO_GRADIENT)
    return ratio.clamp(max=_LARGEST_RATIO).detach()


def adversarial_ramp(progress: float, start: float, length: float) -> float:
    """Returns the share of the adversarial weight that counts at some point of a training, in [0, 1].

    Args:
        progress: share of the training that is done.
        start: share before which none counts.
        length: share over which it rises to all.
    """
    if progress < start:
        return 0.0
    return 1.0 if length <= 0 else min(1.0, (progress - start) / length)


def peak_signal_to_noise(made: Tensor, real: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each face in dB, (B,); at most 100.

    Args:
        made: (B, C, H, W), clamped to [−1, 1].
        real: the same shape, in [−1, 1].
    """
    error = (made.float().clamp(-1, 1) - real.float()).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / error.clamp(min=4e-10))
