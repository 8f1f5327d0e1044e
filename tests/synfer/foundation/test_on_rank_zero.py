"""What rank 0 finds, or refuses, every rank knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synfer.foundation.on_rank_zero import on_rank_zero_for_all


def refuse() -> int:
    raise ValueError("found no set, expected one")


def one_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        found = [on_rank_zero_for_all(lambda: rank + 7)]
        try:
            on_rank_zero_for_all(refuse)
        except ValueError as error:
            found.append(str(error))
        Path(folder, f"rank{rank}").write_text(str(found))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_ranks(tmp_path: Path) -> None:
    # Forked: a process that imports torch anew costs seconds.
    torch.multiprocessing.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert (tmp_path / f"rank{rank}").read_text() == "[7, 'found no set, expected one']"


def test_one_rank() -> None:
    assert on_rank_zero_for_all(lambda: 3) == 3
    with pytest.raises(ValueError, match="found no set"):
        on_rank_zero_for_all(refuse)
