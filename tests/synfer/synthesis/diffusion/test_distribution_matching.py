from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synfer.synthesis.diffusion.distribution_matching import distance_of_means


def residuals(n: int = 8) -> Tensor:
    return torch.randn(n, 4, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.3


def test_the_distance_is_that_of_the_means_of_the_batch() -> None:
    output, target = residuals(), residuals().flip(0) * 2
    weight = torch.rand(8, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    expected = ((weight * output).mean(0) - (weight * target).mean(0)).square().mean()
    torch.testing.assert_close(distance_of_means(weight * (output - target))[0], expected)


def test_weight_on_means_is_that_of_real_fake_on_sums_of_eight() -> None:
    """Its code sums over a batch of eight and multiplies by 0.003."""
    batch = residuals()
    theirs = 0.003 * batch.sum(0).square().mean()
    torch.testing.assert_close(0.192 * distance_of_means(batch)[0], theirs)


@pytest.mark.parametrize("times", [2, 3])
def test_a_repeated_batch_changes_nothing(times: int) -> None:
    once = residuals().requires_grad_()
    distance, _ = distance_of_means(once)
    distance.backward()
    assert once.grad is not None
    expected, once.grad = once.grad.clone(), None
    repeated, _ = distance_of_means(once.repeat(times, 1, 1, 1))
    repeated.backward()
    torch.testing.assert_close(repeated, distance)
    torch.testing.assert_close(once.grad, expected)


def test_a_network_that_is_right_on_average_has_the_ratio_one() -> None:
    generator = torch.Generator().manual_seed(0)
    ratios = [distance_of_means(torch.randn(6, 4, 8, 8, generator=generator))[1] for _ in range(50)]
    assert torch.stack(ratios).mean() == pytest.approx(1, abs=0.05)
    assert distance_of_means(torch.randn(6, 4, 8, 8, generator=generator) + 1)[1] > 3  # 7 / 2 in the limit


def test_no_residual_at_all() -> None:
    distance, ratio = distance_of_means(torch.zeros(3, 4, 2, 2))
    assert float(distance) == 0 and float(ratio) == 0


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(4, 4, 1)


def one_rank(rank: int, ranks: int, folder: str, repeats: bool) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    ours = nn.parallel.DistributedDataParallel(network())
    whole = residuals()
    share = whole if repeats else whole[rank * 8 // ranks : (rank + 1) * 8 // ranks]
    distance, ratio = distance_of_means(ours(share))
    distance.backward()
    gradients = [p.grad for p in ours.parameters()]
    torch.save((distance.detach(), ratio, gradients), f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.parametrize("repeats", [False, True])
def test_two_ranks_equal_one_with_both_batches(repeats: bool, tmp_path: Path) -> None:
    """Each with a half of the batch, and each with the whole one: distance and gradients are those of one process."""
    single = network()
    distance, ratio = distance_of_means(single(residuals()))
    distance.backward()
    torch.multiprocessing.start_processes(one_rank, (2, str(tmp_path), repeats), nprocs=2, start_method="fork")
    for rank in range(2):
        found, found_ratio, gradients = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, distance.detach())
        torch.testing.assert_close(found_ratio, ratio * (2 if repeats else 1))
        for gradient, parameter in zip(gradients, single.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad)
