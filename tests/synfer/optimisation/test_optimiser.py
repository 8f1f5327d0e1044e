from __future__ import annotations

import pytest
import torch
from torch import nn

from synfer.optimisation.optimiser import build_optimiser, decay_groups


def test_kernels_decay_and_biases_norms_and_frozen_weights_do_not() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    network[2].weight.requires_grad_(False)
    decayed, kept = decay_groups(network.parameters(), 0.1)
    assert decayed == {"params": [network[0].weight], "weight_decay": 0.1}
    assert kept["weight_decay"] == 0.0
    assert [id(p) for p in kept["params"]] == [
        id(p) for p in (network[0].bias, network[1].weight, network[1].bias, network[2].bias)
    ]


def test_names_and_their_settings() -> None:
    parameters = nn.Linear(2, 2).parameters()
    sgd = build_optimiser(parameters, "sgd", 0.1, 5e-4, 0.8)
    assert isinstance(sgd, torch.optim.SGD)
    assert [(g["lr"], g["momentum"], g["nesterov"], g["weight_decay"]) for g in sgd.param_groups] == [
        (0.1, 0.8, True, 5e-4),
        (0.1, 0.8, True, 0.0),
    ]
    adamw = build_optimiser(nn.Linear(2, 2).parameters(), "adamw", 1e-3, 0.05)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [(g["lr"], g["weight_decay"]) for g in adamw.param_groups] == [(1e-3, 0.05), (1e-3, 0.0)]
    with pytest.raises(ValueError, match="found 'lion', expected one of sgd, adamw, muon, lars"):
        build_optimiser(nn.Linear(2, 2).parameters(), "lion", 0.1, 0.0)  # type: ignore[arg-type]


def test_sgd_without_momentum_is_plain() -> None:
    sgd = build_optimiser(nn.Linear(2, 2).parameters(), "sgd", 0.1, 0.0, momentum=0.0)
    assert [g["nesterov"] for g in sgd.param_groups] == [False, False]


def test_muon_takes_orthogonal_steps_of_kernels_at_the_scheduled_rate() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    muon = build_optimiser(network.parameters(), "muon", 1e-2, 0.0, 0.95)
    for rate in (1e-2, 1e-3):
        for group in muon.param_groups:
            group["lr"] = rate
        before = [p.detach().clone() for p in network.parameters()]
        network(torch.randn(8, 4, 5, 5)).square().sum().backward()
        muon.step()
        muon.zero_grad()
        kernel, *others = [(new - old).detach() for new, old in zip(network.parameters(), before, strict=True)]
        # Five Newton-Schulz steps bring all singular values near one; the whole is scaled to an AdamW step's size.
        singular = torch.linalg.svdvals(kernel.flatten(1))
        assert float(singular.min() / singular.max()) > 0.5
        assert float(kernel.square().mean().sqrt()) == pytest.approx(0.2 * rate, rel=0.3)
        assert all(float(step.abs().max()) <= 2 * rate for step in others)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_steps_are_in_proportion_to_the_weights_and_biases_take_plain_steps(decay: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.bias.fill_(1.0)
    lars = build_optimiser(layer.parameters(), "lars", 0.5, decay, 0.9)
    before = [p.detach().clone() for p in layer.parameters()]
    gradients = [torch.full_like(p, 1e3) for p in layer.parameters()]
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    lars.step()
    weight, bias = (new.detach() - old for new, old in zip(layer.parameters(), before, strict=True))
    # η ‖w‖ / (‖g‖ + λ‖w‖) with η = 0.001, however large the gradient.
    whole = gradients[0] + decay * before[0]
    trust = 0.001 * before[0].norm() / (gradients[0].norm() + decay * before[0].norm())
    assert torch.allclose(weight, -0.5 * trust * whole, rtol=1e-4)
    assert torch.allclose(bias, -0.5 * gradients[1])
