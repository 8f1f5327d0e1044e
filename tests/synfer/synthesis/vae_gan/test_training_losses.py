"""One backward pass gives each network the gradient that its own backward pass would give it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from synfer.networks.vae_gan import VAEGAN, VAEGANSettings
from synfer.synthesis.vae_gan.losses import (
    discriminator_hinge,
    distance,
    feature_distance,
    generator_hinge,
    gradient_ratio,
    kl_divergence,
    r1_penalty,
)
from synfer.synthesis.vae_gan.training_losses import LossSettings, Wishes, draw_wishes, training_losses


def networks(**changes: Any) -> VAEGAN:
    torch.manual_seed(0)
    made = VAEGAN(VAEGANSettings(**{"widths": (8, 8), "latent_size": 4, **changes}), 16, 3)
    for parameter in made.parameters():  # nothing is zero by its start
        nn.init.normal_(parameter, std=0.15)
    return made


def batch(seed: int = 0, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    face = torch.rand(rows, 1, 16, 16, generator=generator) * 2 - 1
    return face, torch.arange(rows) % 3, torch.randn(rows, 4, generator=generator)


def wished(seed: int = 0) -> tuple[Tensor, Wishes]:
    face, label, noise = batch(seed)
    return face, Wishes.all_rebuilt(noise, label)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def by_the_book(model: VAEGAN, settings: LossSettings, penalised: bool) -> tuple[dict[str, Tensor], float]:
    """Two losses, two backward passes, each with the other network's parameters switched off."""
    face, label, noise = batch()
    model.zero_grad()
    model.discriminator.requires_grad_(False)
    mean, log_variance = model.encoder(face)
    made = model.decoder(mean + noise * torch.exp(log_variance / 2), label)
    fake, made_maps = model.discriminator(made, label)
    _, real_maps = model.discriminator(face, label)
    rebuilt = settings.pixel_weight * distance(made, face, settings.distance)
    rebuilt = rebuilt + settings.feature_weight * feature_distance(made_maps, real_maps, settings.distance)
    weight: Any = settings.adversarial_weight
    if settings.adversarial_balance == "gradient" and weight:
        last = model.decoder.output.weight
        slopes = [torch.autograd.grad(x, last, retain_graph=True)[0] for x in (rebuilt, generator_hinge(fake))]
        weight = weight * gradient_ratio(*slopes)
    kl = kl_divergence(mean, log_variance).mean() / (16 * 16)
    generator = rebuilt + settings.kl_weight * kl + weight * generator_hinge(fake)
    generator.backward()
    model.discriminator.requires_grad_(True)
    shown = face.clone().requires_grad_()
    real, _ = model.discriminator(shown, label)
    fake, _ = model.discriminator(made.detach(), label)
    loss = discriminator_hinge(real, fake)
    if penalised:
        loss = loss + settings.r1_weight * settings.r1_every * r1_penalty(real, shown)
    loss.backward()
    return gradients(model), float(generator.detach() + loss.detach())


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("class_conditional", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adversarial_balance": "fixed", "distance": "l2"},
        {"feature_weight": 0.0, "r1_weight": 2.0},
        {"pixel_weight": 0.0, "kl_weight": 3.0},
        {"adversarial_weight": 0.0},
    ],
)
def test_gradients_are_those_of_two_backward_passes(
    step: int, class_conditional: bool, changes: dict[str, Any]
) -> None:
    model = networks(class_conditional=class_conditional)
    settings = LossSettings(**{"r1_weight": 0.5, "r1_every": 4, **changes})
    expected, value = by_the_book(model, settings, penalised=step == 0)
    model.zero_grad()
    losses = training_losses(model, *wished(), settings, step, progress=0.5)
    assert not gradients(model)  # nothing is left over from the gradients on the way
    losses.total.backward()
    found = gradients(model)
    assert set(found) == set(expected) == {name for name, _ in model.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    assert float(losses.total.detach()) == pytest.approx(value, rel=1e-5)
    assert ("r1_loss" in losses.terms) == (step == 0)
    assert not any(term.requires_grad for term in losses.terms.values())


def test_the_decoder_does_not_hear_the_discriminator_before_its_time() -> None:
    model, settings = networks(), LossSettings(feature_weight=0.0, adversarial_start=0.2, adversarial_rise=0.2)
    found = []
    for progress in (0.1, 0.3, 0.4):
        found.append(float(training_losses(model, *wished(), settings, 1, progress).terms["adversarial_weight"]))
    assert found[0] == 0.0 < found[1] and found[2] == pytest.approx(2 * found[1])


def test_the_ratio_is_that_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = networks(), LossSettings(feature_weight=0.0)
    sent: list[Tensor] = []

    def weight(seed: int, other: Tensor | None) -> float:
        def all_reduce(found: Tensor) -> None:
            sent.append(found.clone())
            found += found if other is None else other

        monkeypatch.setattr(dist, "all_reduce", all_reduce)
        return float(training_losses(model, *wished(seed), settings, 1, 0.5).terms["adversarial_weight"])

    alone = [weight(seed, None) for seed in (0, 1)]
    assert not sent and alone[0] != alone[1]
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    assert [weight(seed, None) for seed in (0, 1)] == pytest.approx(alone)
    first, second = sent
    together = [weight(0, second), weight(1, first)]
    assert together[0] == pytest.approx(together[1]) and min(abs(together[0] - one) for one in alone) > 1e-3
    mean = (first + second) / 2
    assert together[0] == pytest.approx(settings.adversarial_weight * float(mean[0].norm() / mean[1].norm()), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kl_weight": -1.0}, "model.loss.kl_weight: found -1.0, expected a number of at least 0"),
        ({"r1_every": 0}, "model.loss.r1_every: found 0, expected at least 1"),
        ({"adversarial_start": 1.5}, r"model.loss.adversarial_start: found 1.5, expected a share in \[0, 1\]"),
        ({"distance": "l3"}, "model.loss.distance: found 'l3', expected l1 or l2"),
        ({"adversarial_balance": "none"}, "model.loss.adversarial_balance: found 'none', expected gradient or fixed"),
    ],
)
def test_bad_weights_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        LossSettings(**changes)


# ---------------------------------------------------------------- a classifier that looks on, and other expressions


class Onlooker(nn.Module):
    """A classifier with two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.head = nn.Conv2d(1, 4, 3, stride=2), nn.Conv2d(4, 4, 3, stride=2), nn.Linear(4, 3)
        self.requires_grad_(False)

    def forward(self, face: Tensor) -> tuple[Tensor, list[Tensor]]:
        first = torch.tanh(self.first(face))
        second = torch.tanh(self.second(first))
        return self.head(second.mean((2, 3))), [first, second]


def test_the_decoder_hears_a_classifier_as_if_it_were_part_of_the_loss() -> None:
    model, onlooker = networks(), Onlooker()
    plain = LossSettings(adversarial_weight=0.0, r1_weight=0.0)
    settings = replace(plain, perceptual_weight=0.7, expression_weight=0.3)
    face, label, noise = batch()
    training_losses(model, *wished(), plain, 1, 0.5).total.backward()
    mean, log_variance = model.encoder(face)
    logits, maps = onlooker(model.decoder(mean + noise * torch.exp(log_variance / 2), label))
    pairs = zip(maps, onlooker(face)[1], strict=True)
    perceptual = torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in pairs]).mean()
    (0.7 * perceptual + 0.3 * nn.functional.cross_entropy(logits, label)).backward()
    expected = gradients(model)
    model.zero_grad()
    losses = training_losses(model, *wished(), settings, 1, 0.5, onlooker)
    losses.total.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)
    assert float(losses.terms["perceptual_loss"]) == pytest.approx(float(perceptual.detach()), rel=1e-5)


def test_a_share_is_made_under_another_expression_and_needs_not_come_back() -> None:
    settings = LossSettings(relabelled_share=0.5, relabelled_strength=3.0)
    label = torch.arange(4000) % 3
    drawn = draw_wishes(label, 4, 3, settings, torch.Generator().manual_seed(0))
    assert drawn.rebuilt.sum() == 2000 and torch.equal(drawn.asked[drawn.rebuilt], label[drawn.rebuilt])
    assert (torch.bincount(drawn.asked[~drawn.rebuilt]) / 2000 - 1 / 3).abs().amax() < 0.05
    spread = [float(drawn.noise[rows].std()) for rows in (drawn.rebuilt, ~drawn.rebuilt)]
    assert spread == pytest.approx([1, 3], rel=0.05)
    none = draw_wishes(label, 4, 3, LossSettings(), torch.Generator().manual_seed(0))
    assert none.rebuilt.all() and torch.equal(none.asked, label)
    assert draw_wishes(label[:1], 4, 3, settings, torch.Generator()).rebuilt.all()  # something must come back


def test_what_is_relabelled_counts_in_no_reconstruction() -> None:
    model, settings = networks(), LossSettings(adversarial_weight=0.0, r1_weight=0.0, kl_weight=0.0)
    face, label, noise = batch()
    rebuilt = torch.arange(6) < 4
    asked = torch.where(rebuilt, label, (label + 1) % 3)
    some = training_losses(model, face, Wishes(noise, label, asked, rebuilt), settings, 1, 0.5)
    few = training_losses(model, face[:4], Wishes.all_rebuilt(noise[:4], label[:4]), settings, 1, 0.5)
    for name in ("reconstruction_loss", "feature_loss"):
        assert float(some.terms[name]) == pytest.approx(float(few.terms[name]), rel=1e-5)
