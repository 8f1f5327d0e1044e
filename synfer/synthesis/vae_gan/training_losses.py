"""What a VAE-GAN learns by in one step: one number whose gradient is each network's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional as F

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
    relative_distance,
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
        perceptual_weight: of the distance of reconstructions in the feature maps of a frozen classifier of expressions,
            relative to the size of those maps (Johnson et al., arXiv 1603.08155); 0 = none. Pixels alone blur away what
            tells expressions apart.
        expression_weight: of that classifier's cross-entropy on made faces under the expression that each is to show
            (the auxiliary classifier of Odena et al., arXiv 1610.09585, frozen); 0 = none.
        relabelled_share: share of each batch that is decoded under an expression drawn at random, its code moved by
            ``relabelled_strength``, and that no reconstruction loss counts: what a decoder that is told the expression
            learns to make of other faces by the discriminator and the classifier alone. 0 = none.
        relabelled_strength: times the code's deviation in that share; what is moved so in synthesis stays a face.

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
    perceptual_weight: float = 0.0
    expression_weight: float = 0.0
    relabelled_share: float = 0.0
    relabelled_strength: float = 2.0

    def __post_init__(self) -> None:
        for name in ("perceptual_weight", "expression_weight", "relabelled_strength"):
            check_setting(getattr(self, name) >= 0, f"loss.{name}", getattr(self, name), "a number of at least 0")
        fine, expected = 0 <= self.relabelled_share < 1, "a share in [0, 1)"
        check_setting(fine, "loss.relabelled_share", self.relabelled_share, expected)
        for name in ("pixel_weight", "feature_weight", "kl_weight", "adversarial_weight", "r1_weight"):
            check_setting(getattr(self, name) >= 0, f"loss.{name}", getattr(self, name), "a number of at least 0")
        for name in ("adversarial_start", "adversarial_rise"):
            check_setting(0 <= getattr(self, name) <= 1, f"loss.{name}", getattr(self, name), "a share in [0, 1]")
        check_setting(self.r1_every >= 1, "loss.r1_every", self.r1_every, "at least 1")
        check_setting(self.distance in ("l1", "l2"), "loss.distance", f"'{self.distance}'", "l1 or l2")
        fine = self.adversarial_balance in ("gradient", "fixed")
        check_setting(fine, "loss.adversarial_balance", f"'{self.adversarial_balance}'", "gradient or fixed")

    @property
    def needs_perception(self) -> bool:
        """Whether a classifier of expressions looks at made faces."""
        return self.perceptual_weight > 0 or self.expression_weight > 0


@dataclass(frozen=True)
class Wishes:
    """What a step makes of its faces.

    Attributes:
        noise: standard normal numbers times the strength of each face, (B, Z).
        label: the expression that each face shows, int64 (B,).
        asked: the one under which it is decoded, (B,).
        rebuilt: whether it is to come back as it was, bool (B,).
    """

    noise: Tensor
    label: Tensor
    asked: Tensor
    rebuilt: Tensor

    @classmethod
    def all_rebuilt(cls, noise: Tensor, label: Tensor) -> Wishes:
        """Returns the wish that every face comes back as it was."""
        return cls(noise, label, label, torch.ones_like(label, dtype=torch.bool))


def draw_wishes(
    label: Tensor, latent_size: int, num_classes: int, settings: LossSettings, generator: torch.Generator
) -> Wishes:
    """Returns what a step makes of faces that show these expressions: all come back, but for the relabelled share.

    Args:
        label: int64 (B,).
        latent_size: numbers Z in a code.
        num_classes: expressions to draw from.
        settings: share and strength.
        generator: what is drawn from.
    """
    device, count = label.device, len(label)
    noise = torch.randn(count, latent_size, generator=generator, device=device)
    changed = min(count - 1, round(settings.relabelled_share * count))
    if changed <= 0:
        return Wishes.all_rebuilt(noise, label)
    rebuilt = torch.arange(count, device=device) < count - changed
    drawn = torch.randint(num_classes, (count,), generator=generator, device=device)
    strength = torch.where(rebuilt, 1.0, settings.relabelled_strength)
    return Wishes(noise * strength[:, None], label, torch.where(rebuilt, label, drawn), rebuilt)


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
    wishes: Wishes,
    settings: LossSettings,
    step: int,
    progress: float,
    perceive: Callable[[Tensor], tuple[Tensor, list[Tensor]]] | None = None,
) -> TrainingLosses:
    """Returns the losses of all three networks on one batch.

    ``total.backward()`` gives encoder and decoder the gradient of reconstruction, KL and adversarial loss, and the
    discriminator that of its hinge loss and penalty, and neither anything of the other's. So that this takes one
    backward pass, in which each parameter has a part exactly once (what DistributedDataParallel waits for), whoever
    looks at the made faces sees them as a leaf: what it says to the decoder is the gradient at that leaf, which the
    chain rule carries on. It also saves two of the four passes through the discriminator.

    On several ranks the gradients whose ratio weighs the adversarial loss are those of all ranks, and so a collective.

    Args:
        networks: all of whose parameters learn.
        face: real faces, (B, C, H, W) in [−1, 1].
        wishes: what is made of them.
        settings: weights.
        step: of the training, from 0 on.
        progress: share of the training that is done, in [0, 1].
        perceive: a frozen classifier of expressions: faces as above → logits (B, K) and feature maps; needed where the
            settings say so.
    """
    label, asked, kept = wishes.label, wishes.asked, wishes.rebuilt
    mean, log_variance = networks.encoder(face)
    made = networks.decoder(mean + wishes.noise * (0.5 * log_variance).exp(), asked).float()
    pixels = distance(made[kept], face[kept], settings.distance)
    kl = kl_divergence(mean, log_variance).mean()

    penalised = settings.r1_weight > 0 and step % settings.r1_every == 0
    shown_real = face.detach().requires_grad_(penalised)
    shown_made = made.detach().requires_grad_()
    real, real_maps = networks.discriminator(shown_real, label)
    fake, made_maps = networks.discriminator(shown_made, asked)
    hinge = discriminator_hinge(real, fake)
    features = feature_distance([m[kept] for m in made_maps], [m[kept] for m in real_maps], settings.distance)
    adversarial = generator_hinge(fake)
    terms = {"reconstruction_loss": pixels, "feature_loss": features, "kl": kl}

    said = settings.feature_weight * features
    if settings.needs_perception:
        assert perceive is not None, "these settings need a classifier of expressions"
        logits, maps = perceive(shown_made)
        terms["expression_loss"] = F.cross_entropy(logits.float(), asked)
        said = said + settings.expression_weight * terms["expression_loss"]
        if settings.perceptual_weight > 0:
            with torch.no_grad():
                wanted = perceive(face[kept])[1]
            terms["perceptual_loss"] = relative_distance([m[kept] for m in maps], wanted)
            said = said + settings.perceptual_weight * terms["perceptual_loss"]
    at_face = torch.zeros_like(made)  # what whoever looks at the faces says to the decoder
    if settings.feature_weight > 0 or settings.needs_perception:
        at_face += grad(said, shown_made, retain_graph=True)[0]
    weight = torch.zeros((), device=face.device)
    ramp = adversarial_ramp(progress, settings.adversarial_start, settings.adversarial_rise)
    if (share := settings.adversarial_weight * ramp) > 0:
        from_adversary = grad(adversarial, shown_made, retain_graph=True)[0]
        weight += share
        if settings.adversarial_balance == "gradient":
            from_pixels = settings.pixel_weight * grad(pixels, made, retain_graph=True)[0]
            weight *= _ratio_at_last_layer(networks, made, from_pixels + at_face, from_adversary)
        at_face += weight * from_adversary

    heard = said.detach() + weight * adversarial.detach()
    through_decoder = (
        settings.pixel_weight * pixels
        + settings.kl_weight * kl / face[0].numel()
        + _with_gradient(heard, made, at_face)
    )
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
