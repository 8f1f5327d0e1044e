"""The folder of a pool's file goes with its owner."""

from __future__ import annotations

import gc
from pathlib import Path

from datamodules.synthetic.pool_folder import PoolFolder


def test_two_pools_share_no_folder_and_leave_nothing(tmp_path: Path) -> None:
    one, two = (PoolFolder(str(tmp_path / "pools")) for _ in range(2))
    assert one.path != two.path and Path(one.path).parent == tmp_path / "pools"
    Path(one.path, "pool-rank0.bin").write_bytes(b"1")
    one.remove()
    one.remove()  # as at the end of the process
    assert not Path(one.path).exists() and Path(two.path).is_dir()


def test_it_goes_with_the_object(tmp_path: Path) -> None:
    folder = PoolFolder(str(tmp_path))
    path = folder.path
    del folder
    gc.collect()
    assert not Path(path).exists()
