from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from synfer.metrics.gathered_rows import GatheredRows
from synfer.metrics.nearest_reference import NearestReference

ROWS = 11


def table() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "key": torch.randperm(ROWS, generator=generator) * 10**15 - 5 * 10**15,
        "features": torch.randn(ROWS, 4, generator=generator),
        "label": torch.arange(ROWS) % 3,
    }


def gather(mine: list[Tensor]) -> dict[str, Tensor]:
    """Takes this rank's rows in, batch by batch."""
    whole = table()
    rows = GatheredRows({"features": whole["features"], "label": whole["label"]})
    for batch in mine:
        rows.update(**{name: column[batch] for name, column in whole.items()})
    return rows.compute()


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_rows_come_back_in_one_order(batch: int) -> None:
    order = table()["key"].argsort()
    found = gather(list(torch.randperm(ROWS).split(batch)))
    for name, column in table().items():
        assert torch.equal(found[name], column[order]) and found[name].dtype == column.dtype


def test_no_row_at_all() -> None:
    found = gather([])
    assert found["features"].shape == (0, 4) and found["label"].dtype == torch.int64


def one_rank(rank: int, shares: list[list[int]], folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=len(shares))
    try:
        mine = torch.tensor(shares[rank], dtype=torch.int64)
        whole = table()["features"]
        search = NearestReference(whole[:3] + 0.1)
        if len(mine):
            search.update(whole[mine], mine)
        found = {"rows": gather([mine[:3], mine[3:]] if len(mine) else []), "nearest": search.compute()}
        torch.save(found, f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.slow
def test_three_ranks_one_of_them_without_a_row(tmp_path: Path) -> None:
    shares = [[10, 0, 4, 2, 7, 9], [], [1, 3, 5, 6, 8]]
    # Forked: a process that imports torch anew costs seconds.
    torch.multiprocessing.start_processes(one_rank, (shares, str(tmp_path)), nprocs=3, start_method="fork")
    alone, whole = gather([torch.arange(ROWS)]), table()["features"]
    search = NearestReference(whole[:3] + 0.1)
    search.update(whole, torch.arange(ROWS))
    for rank in range(3):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert all(torch.equal(found["rows"][name], column) for name, column in alone.items())
        assert all(torch.equal(a, b) for a, b in zip(found["nearest"], search.compute(), strict=True))


def one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        rows = GatheredRows({"pair": torch.empty(0, 2)}, keyed=False)
        if rank == 0:
            rows.update(pair=torch.tensor([[1, 2], [3, 4], [5, 6]]))
        torch.save(rows.compute(), f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_without_keys_a_rank_without_a_row_gets_those_of_the_others(tmp_path: Path) -> None:
    # Forked: a process that imports torch anew costs seconds.
    torch.multiprocessing.start_processes(one_of_two, (str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert set(found) == {"pair"} and found["pair"].tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_row_and_no_key() -> None:
    assert tuple(GatheredRows({"row": torch.empty(0, 3)}, keyed=False).compute()["row"].shape) == (0, 3)


def test_a_single_row_stays_a_row() -> None:
    rows = GatheredRows({"label": torch.zeros(0, dtype=torch.int64), "one": torch.empty(0, 1)})
    rows.update(torch.tensor([7]), label=torch.tensor([2]), one=torch.tensor([[0.5]]))
    shapes = {name: tuple(column.shape) for name, column in rows.compute().items()}
    assert shapes == {"key": (1,), "label": (1,), "one": (1, 1)}
