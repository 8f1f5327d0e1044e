from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from synfer.synthesis.vae_gan.losses import (
    adversarial_ramp,
    discriminator_hinge,
    distance,
    feature_distance,
    generator_hinge,
    gradient_ratio,
    kl_divergence,
    peak_signal_to_noise,
    r1_penalty,
)


def test_hinge_losses_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.5, 0.0])
    # relu(1 − real) = 0, 0.5, 2; relu(1 + fake) = 0, 1.5, 1
    assert float(discriminator_hinge(real, fake)) == pytest.approx(0.5 * (2.5 / 3 + 2.5 / 3))
    assert float(generator_hinge(fake)) == pytest.approx(0.5)


def test_kl_by_hand_and_against_torch() -> None:
    mean, log_variance = torch.tensor([[0.0, 0.0], [1.0, -2.0]]), torch.tensor([[0.0, 0.0], [math.log(4), 0.0]])
    by_hand = 0.5 * (1 + 4 - 1 - math.log(4)) + 0.5 * 4
    assert kl_divergence(mean, log_variance).tolist() == pytest.approx([0.0, by_hand])
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


def test_distances_by_hand() -> None:
    made, real = torch.tensor([1.0, -1.0, 0.0, 0.5]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert float(distance(made, real, "l1")) == pytest.approx(3.5 / 4)
    assert float(distance(made, real, "l2")) == pytest.approx(5.25 / 4)
    maps = ([made, made[:2]], [real, real[:2]])
    assert float(feature_distance(*maps, "l1")) == pytest.approx(3.5 / 4 + 1.5)
    assert distance(made.bfloat16(), real.bfloat16(), "l1").dtype == torch.float32


def test_real_features_get_no_gradient() -> None:
    made, real = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    feature_distance([made], [real], "l2").backward()
    assert made.grad is not None and real.grad is None


def network(face: Tensor) -> Tensor:
    """A logit of each face alone, whose slope is no constant."""
    weight = torch.linspace(-1, 1, 12, dtype=face.dtype).view(1, 3, 2, 2)
    return torch.tanh((face * weight).sum((1, 2, 3))) + (face**2).mean((1, 2, 3))


def test_r1_against_finite_differences() -> None:
    face = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    face.requires_grad_()
    found = r1_penalty(network(face), face)
    step, squares = 1e-5, 0.0
    with torch.no_grad():
        for place in range(face[0].numel()):
            moved = torch.zeros(12, dtype=torch.float64)
            moved[place] = step
            moved = moved.view(1, 3, 2, 2)
            squares += float((((network(face + moved) - network(face - moved)) / (2 * step)) ** 2).sum())
    assert float(found.detach()) == pytest.approx(0.5 * squares / 2, rel=1e-4)


def test_r1_teaches_whoever_made_the_logits() -> None:
    weight = torch.tensor([[3.0, 4.0]], requires_grad=True)
    face = torch.ones(5, 1, 1, 2, requires_grad=True)
    penalty = r1_penalty((face.flatten(1) * weight).sum(1), face)
    assert float(penalty.detach()) == pytest.approx(0.5 * 25)
    penalty.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, weight.detach())  # of ½ ‖w‖²


def test_ratio_of_gradients_is_clamped() -> None:
    reconstruction = torch.tensor([3.0, 4.0])
    assert float(gradient_ratio(reconstruction, torch.tensor([[0.0], [2.0]]))) == pytest.approx(2.5, rel=1e-5)
    assert float(gradient_ratio(reconstruction, torch.zeros(3))) == 1e4
    assert float(gradient_ratio(torch.zeros(2), reconstruction)) == 0.0


def test_the_adversarial_weight_rises() -> None:
    ramp = [adversarial_ramp(progress, 0.1, 0.2) for progress in (0.0, 0.05, 0.2, 0.3, 0.9)]
    assert ramp == pytest.approx([0, 0, 0.5, 1, 1])
    assert adversarial_ramp(0.5, 0.5, 0.0) == 1.0 and adversarial_ramp(0.49, 0.5, 0.0) == 0.0


def test_peak_signal_to_noise_by_hand() -> None:
    real = torch.zeros(3, 1, 2, 2)
    made = real.clone()
    made[1] += 0.2  # an error of 0.1 in [0, 1]: 20 dB
    made[2] += 5.0  # clamped to 1: an error of 0.5
    assert peak_signal_to_noise(made, real).tolist() == pytest.approx([100.0, 20.0, 20 * math.log10(2)], abs=1e-3)
