from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synfer.metrics.collected import Collected


def one_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        collected = Collected(2)
        if rank == 0:
            collected.update(torch.tensor([[1, 2], [3, 4], [5, 6]]))
        torch.save(collected.compute(), f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_a_rank_without_a_row_gets_those_of_the_others(tmp_path: Path) -> None:
    # Forked: a process that imports torch anew costs seconds.
    torch.multiprocessing.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_row_at_all() -> None:
    assert tuple(Collected(3).compute().shape) == (0, 3)
