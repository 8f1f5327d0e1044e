from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from timm.optim import Muon as TimmMuon
from torch import Tensor, nn

from synfer.optimisation.muon import Muon, is_matrix, orthogonalised

SHAPES = [(24, 24), (24, 40), (40, 24), (16, 144), (144, 16)]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(72, 10), nn.Linear(10, 3))


def give_gradients(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def train(module: nn.Module, optimiser: torch.optim.Optimizer, steps: range) -> list[Tensor]:
    for step in steps:
        give_gradients(module, step)
        optimiser.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_become_one_and_directions_stay(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    short = min(shape)
    left = torch.linalg.qr(torch.randn(shape[0], short, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(shape[1], short, generator=generator)).Q
    made = orthogonalised(left @ torch.diag(torch.logspace(0, -2, short)) @ right.mT * 1e-3)
    inside = left.mT @ made @ right
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-3)
    assert float(inside.diagonal().min()) > 0.9 and float(inside.diagonal().max()) < 1.16
    assert float((made - left @ inside @ right.mT).abs().max()) < 1e-3, "and nothing beside them"


def test_nothing_comes_of_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(4, 40)), torch.zeros(4, 40))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 3, 3, 3), True),
        ((8, 72), True),
        ((8,), False),
        ((8, 1, 3, 3), False),
        ((1, 16, 8), False),
        ((3, 72), False),
        ((4, 513), False),
    ],
)
def test_what_counts_as_a_matrix(shape: tuple[int, ...], expected: bool) -> None:
    assert is_matrix(torch.zeros(shape)) is expected


def test_it_steps_as_timms_does_but_for_the_rounding_of_bfloat16() -> None:
    ours, theirs = network(), network()
    groups = [[{"params": list(m.parameters()), "weight_decay": 0.1}] for m in (ours, theirs)]
    begin = [parameter.detach().clone() for parameter in ours.parameters()]
    found = train(ours, Muon(groups[0], 0.01, 0.9), range(4))
    expected = train(theirs, TimmMuon(groups[1], 0.01, momentum=0.9, nesterov=True), range(4))
    for a, b, c in zip(found, expected, begin, strict=True):
        if is_matrix(a):
            assert float((a - b).norm()) < 0.02 * float((b - c).norm())
        else:
            assert torch.equal(a, b)


def test_it_goes_on_from_its_own_state_to_the_bit_and_from_timms() -> None:
    through, stopped = network(), network()
    expected = train(through, Muon(through.parameters(), 0.01), range(4))
    first = Muon(stopped.parameters(), 0.01)
    train(stopped, first, range(2))
    second = Muon(stopped.parameters(), 1.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(train(stopped, second, range(2, 4)), expected, strict=True))

    of_timm = network()
    timms = TimmMuon(of_timm.parameters(), 0.01, momentum=0.95, nesterov=True)
    train(of_timm, timms, range(2))
    ours = Muon(of_timm.parameters(), 1.0)
    ours.load_state_dict(copy.deepcopy(timms.state_dict()))
    for a, b in zip(train(of_timm, ours, range(2, 4)), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_a_group_may_go_without() -> None:
    module = nn.Linear(8, 8, bias=False)
    before = module.weight.detach().clone()
    [after] = train(module, Muon([{"params": [module.weight], "use_fallback": True}], 0.01), range(1))
    assert float((after - before).abs().max()) == pytest.approx(float((after - before).abs().min()), rel=1e-3)


def test_the_gradients_scale_says_nothing() -> None:
    made = []
    for scale in (1.0, 1e-3):
        module = nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            module.weight.fill_(1.0)
        give_gradients(module, 0)
        assert module.weight.grad is not None
        module.weight.grad *= scale
        Muon(module.parameters(), 0.01).step()
        made.append(module.weight.detach())
    assert torch.allclose(made[0], made[1], atol=1e-6)


def one_rank(rank: int, folder: str) -> None:
    """Takes two steps on half of the rows, whose gradients all ranks share."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save(after_two_steps(slice(4 * rank, 4 * rank + 4), shared=True), f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def after_two_steps(rows: slice, shared: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Flatten(), torch.nn.Linear(32, 8))
    network = torch.nn.parallel.DistributedDataParallel(plain) if shared else plain
    optimiser = Muon(network.parameters(), 0.01)
    faces = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        optimiser.zero_grad()
        network(faces[rows]).square().mean().backward()
        optimiser.step()
    return plain.state_dict()


@pytest.mark.ddp
def test_two_ranks_are_one_process_with_the_joined_batch(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    alone = after_two_steps(slice(0, 8), shared=False)
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], tensor, atol=1e-5)
