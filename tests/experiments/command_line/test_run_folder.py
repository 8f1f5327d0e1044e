"""One name for the run folder, whoever starts the ranks."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from experiments.command_line.run_folder import RUN_DIR_VARIABLE, choose_run_dir, refuse_occupied


def test_chosen_name() -> None:
    assert re.fullmatch(r"runs/fit-\d{8}T\d{6}Z-[0-9a-f]{4}", choose_run_dir(None, "fit").as_posix())
    assert choose_run_dir(None, "fit") != choose_run_dir(None, "fit")


def test_given_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(RUN_DIR_VARIABLE, "runs/other")
    assert choose_run_dir("runs/mine", "fit") == Path("runs/mine")


def test_started_rank_follows_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = choose_run_dir(None, "fit")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_run_dir(None, "fit") == first


def test_ranks_of_torchrun_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=20), wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    names = set()
    for rank in ("0", "1"):
        monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
        monkeypatch.setenv("LOCAL_RANK", rank)
        names.add(choose_run_dir(None, "fit"))
    assert len(names) == 1


def test_tasks_of_slurm_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert choose_run_dir(None, "fit") == choose_run_dir(None, "fit") == Path("runs/fit-slurm-17-0")


def test_second_node_without_a_launcher_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(ValueError, match="--run_dir"):
        choose_run_dir(None, "fit")


def test_folder_with_checkpoints_is_occupied(tmp_path: Path) -> None:
    refuse_occupied(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "summary.json").touch()  # a run that died before its first checkpoint may be started again
    refuse_occupied(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        refuse_occupied(tmp_path)
