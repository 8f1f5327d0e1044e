from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from synfer.optimisation.optimiser import build_optimiser
from synfer.optimisation.schedule import scheduled
from synfer.optimisation.sharpness_aware import SharpnessAware, is_perturbed


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


def closure(network: nn.Linear, optimiser: Optimizer) -> Callable[[], Tensor]:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def compute() -> Tensor:
        optimiser.zero_grad()
        loss = (network(x) ** 4).mean()
        loss.backward()
        return loss

    return compute


def test_a_step_is_that_of_its_equation() -> None:
    network, by_hand = layer(), layer()
    sam = SharpnessAware(torch.optim.SGD(network.parameters(), lr=0.1), rho=0.05)
    loss = torch.as_tensor(sam.step(closure(network, sam)))

    plain = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    compute = closure(by_hand, plain)
    assert float(loss.detach()) == pytest.approx(float(compute().detach()), rel=1e-12)
    start = [p.detach().clone() for p in by_hand.parameters()]
    norm = sum(float(p.grad.square().sum()) for p in by_hand.parameters() if p.grad is not None) ** 0.5
    with torch.no_grad():
        for p in by_hand.parameters():
            assert p.grad is not None
            p += 0.05 * p.grad / norm
    compute()
    with torch.no_grad():
        for p, value in zip(by_hand.parameters(), start, strict=True):
            assert p.grad is not None
            p.copy_(value - 0.1 * p.grad)
    for ours, theirs in zip(network.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6)


def test_one_schedule_one_state() -> None:
    network = layer()
    sam = SharpnessAware(build_optimiser(network.parameters(), "adamw", 1e-2, 0.1), rho=0.1)
    schedule = scheduled(sam, "cosine", 4, 0.0)["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(3):
        sam.step(closure(network, sam))
        rates.append(sam.optimiser.param_groups[0]["lr"])
        schedule.step()
    assert rates[0] == 1e-2 > rates[1] > rates[2]

    twin = layer()
    twin.load_state_dict(network.state_dict())
    again = SharpnessAware(build_optimiser(twin.parameters(), "adamw", 1e-2, 0.1), rho=0.1)
    again.load_state_dict(sam.state_dict())
    for optimiser, module in ((sam, network), (again, twin)):
        optimiser.step(closure(module, optimiser))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))
    assert len(sam.state) == 2


def test_it_says_when_the_weights_are_not_its_own_and_puts_them_back_after_an_error() -> None:
    network = layer()
    sam = SharpnessAware(torch.optim.SGD(network.parameters(), lr=0.1), rho=0.05)
    compute, seen = closure(network, sam), []

    def watched() -> Tensor:
        seen.append(is_perturbed(sam))
        if len(seen) == 4:
            raise RuntimeError("no memory left")
        return compute()

    sam.step(watched)
    before = [p.detach().clone() for p in network.parameters()]
    with pytest.raises(RuntimeError, match="no memory left"):
        sam.step(watched)
    assert seen == [False, True, False, True] and not is_perturbed(sam)
    assert all(torch.equal(p, value) for p, value in zip(network.parameters(), before, strict=True))


def test_refusals() -> None:
    plain = torch.optim.SGD(layer().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"model\.sam_rho: found 0"):
        SharpnessAware(plain, 0.0)
    with pytest.raises(RuntimeError, match="found a step without a closure"):
        SharpnessAware(plain, 0.1).step()
