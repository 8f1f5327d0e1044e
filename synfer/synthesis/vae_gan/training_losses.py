"""What a VAE-GAN learns by in one step: one number whose gradient is each network's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import grad

from synfer.foundation.validate import check_setting
from synfer.networks.vae_gan import VAEGAN
from synfer.synthesis.vae_gan.losses import (
    Distance,
    adversarial_ramp,
    discriminator_hinge,
    distance,
    feature_distance,
    generator_hinge,
    gradient_ratio,
    kl_divergence,
    r1_penalty,
)


@dataclass(frozen=True)
class LossSettings:
    """How the losses of a VAE-GAN are weighed.

    Attributes:
        distance: of reconstructions from their faces, in pixels and in features: absolute ("l1") or squared ("l2").
        pixel_weight: of the distance in pixels, which lie in [−1, 1].
        feature_weight: of the distance in the discriminator's feature maps; 0 = none.
        kl_weight: of the divergence from N(0, I) in nats per number of a face.
        adversarial_weight: of the adversarial loss.
        adversarial_balance: take that weight times the ratio of gradients at the decoder's last layer ("gradient") or
            as it is ("fixed").
        adversarial_start: share of the training before which the decoder does not hear the discriminator.
        adversarial_rise: share of the training in which its weight then rises.
        r1_weight: γ of the penalty on the discriminator's slope at real faces; 0 = none.
        r1_every: steps from one penalty to the next, which counts as often (Karras et al., arXiv 1912.04958).

    Raises:
        ValueError: a value out of range.
    """

    distance: Distance = "l1"
    pixel_weight: float = 1.0
    feature_weight: float = 1.0
    kl_weight: float = 1.0
    adversarial_weight: float = 0.5
    adversarial_balance: Literal["gradient", "fixed"] = "gradient"
    adversarial_start: float = 0.1
    adversarial_rise: float = 0.05
    r1_weight: float = 0.01
    r1_every: int = 16

    def __post_init__(self) -> None:
        for name in ("pixel_weight", "feature_weight", "kl_weight", "adversarial_weight", "r1_weight"):
            check_setting(getattr(self, name) >= 0, f"loss.{name}", getattr(self, name), "a number of at least 0")
        for name in ("adversarial_start", "adversarial_rise"):
            check_setting(0 <= getattr(self, name) <= 1, f"loss.{name}", getattr(self, name), "a share in [0, 1]")
        check_setting(self.r1_every >= 1, "loss.r1_every", self.r1_every, "at least 1")
        check_setting(self.distance in ("l1", "l2"), "loss.distance", f"'{self.distance}'", "l1 or l2")
        fine = self.adversarial_balance in ("gradient", "fixed")
        check_setting(fine, "loss.adversarial_balance", f"'{self.adversarial_balance}'", "gradient or fixed")


@dataclass(frozen=True)
class TrainingLosses:
    """The losses of one step.

    Attributes:
        total: their weighted sum, to be taken back through the networks once.
        terms: each by name, without its weight, detached; the weight of the adversarial loss among them.
    """

    total: Tensor
    terms: dict[str, Tensor]


def training_losses(
    networks: VAEGAN,
    face: Tensor,
    label: Tensor,
    noise: Tensor,
    settings: LossSettings,
    step: int,
    progress: float,
) -> TrainingLosses:
    """Returns the losses of all three networks on one batch.

    ``total.backward()`` gives encoder and decoder the gradient of reconstruction, KL and adversarial loss, and the
    discriminator that of its hinge loss and penalty, and neither anything of the other's. So that this takes one
    backward pass, in which each parameter has a part exactly once (what DistributedDataParallel waits for), the
    discriminator sees the made faces as a leaf: what it says to the decoder is the gradient at that leaf, which the
    chain rule carries on. It also saves two of the four passes through the discriminator.

    On several ranks the gradients whose ratio weighs the adversarial loss are those of all ranks, and so a collective.

    Args:
        networks: all of whose parameters learn.
        face: real faces, (B, C, H, W) in [−1, 1].
        label: their expressions, int64 (B,).
        noise: standard normal numbers, (B, Z).
        settings: weights.
        step: of the training, from 0 on.
        progress: share of the training that is done, in [0, 1].
    """
    mean, log_variance = networks.encoder(face)
    made = networks.decoder(mean + noise * (0.5 * log_variance).exp(), label).float()
    pixels = distance(made, face, settings.distance)
    kl = kl_divergence(mean, log_variance).mean()

    penalised = settings.r1_weight > 0 and step % settings.r1_every == 0
    shown_real = face.detach().requires_grad_(penalised)
    shown_made = made.detach().requires_grad_()
    real, real_maps = networks.discriminator(shown_real, label)
    fake, made_maps = networks.discriminator(shown_made, label)
    hinge = discriminator_hinge(real, fake)
    features = feature_distance(made_maps, real_maps, settings.distance)
    adversarial = generator_hinge(fake)

    at_face = torch.zeros_like(made)  # what the discriminator says to the decoder
    if settings.feature_weight > 0:
        at_face += settings.feature_weight * grad(features, shown_made, retain_graph=True)[0]
    weight = torch.zeros((), device=face.device)
    ramp = adversarial_ramp(progress, settings.adversarial_start, settings.adversarial_rise)
    if (share := settings.adversarial_weight * ramp) > 0:
        from_adversary = grad(adversarial, shown_made, retain_graph=True)[0]
        weight += share
        if settings.adversarial_balance == "gradient":
            from_pixels = settings.pixel_weight * grad(pixels, made, retain_graph=True)[0]
            weight *= _ratio_at_last_layer(networks, made, from_pixels + at_face, from_adversary)
        at_face += weight * from_adversary

    said = settings.feature_weight * features.detach() + weight * adversarial.detach()
    through_decoder = (
        settings.pixel_weight * pixels + settings.kl_weight * kl / face[0].numel() + _with_gradient(said, made, at_face)
    )
    terms = {"reconstruction_loss": pixels, "feature_loss": features, "kl": kl}
    terms |= {"adversarial_loss": adversarial, "discriminator_loss": hinge}
    total = through_decoder + hinge
    if penalised:
        terms["r1_loss"] = r1_penalty(real, shown_real)
        total = total + settings.r1_weight * settings.r1_every * terms["r1_loss"]
    terms |= {"adversarial_weight": weight, "real_logit": real.mean(), "made_logit": fake.mean()}
    return TrainingLosses(total, {name: term.detach() for name, term in terms.items()})


def _with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Returns a number that is ``value`` and whose gradient at ``x`` is ``gradient``."""
    through = (x * gradient).sum()
    return value + through - through.detach()


def _ratio_at_last_layer(networks: VAEGAN, made: Tensor, from_faces: Tensor, from_adversary: Tensor) -> Tensor:
    """Returns the ratio of two gradients at the faces, as seen by the decoder's last layer, the same on all ranks."""
    last = networks.decoder.output.weight
    found = torch.stack([grad(made, last, at, retain_graph=True)[0] for at in (from_faces, from_adversary)])
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(found)
        found /= dist.get_world_size()
    return gradient_ratio(found[0], found[1])
