"""One name for the run folder, whoever starts the ranks, and a restart of the same job finds it again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.cluster.launch import Launch
from experiments.command_line.run_folder import (
    CHECKPOINT_VARIABLE,
    RUN_DIR_VARIABLE,
    RunPlace,
    choose_place,
    refuse_occupied,
    tell_started_ranks,
)

SHELL = Launch("shell")
BATCH = Launch("shell", job="slurm here 17", name="slurm-17-ab12cd", slurm_job="17")


def test_chosen_name() -> None:
    names = [choose_place(None, "fit", SHELL).run_dir for _ in range(2)]
    assert re.fullmatch(r"runs/fit-\d{8}T\d{6}Z-[0-9a-f]{4}", names[0]) and names[0] != names[1]


def test_given_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, "runs/other")
    for launch in (SHELL, BATCH, Launch("lightning", 1)):
        assert choose_place("runs/mine", "fit", launch).run_dir == "runs/mine"


def test_a_rank_that_lightning_starts_follows_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, "")
    monkeypatch.setenv(CHECKPOINT_VARIABLE, "")
    first = RunPlace("runs/a", "runs/a/checkpoints/last.ckpt", job="slurm here 17", restarts=2)
    tell_started_ranks(first)
    found = choose_place(None, "fit", Launch("lightning", 1, job="slurm here 17"))
    assert (found.run_dir, found.checkpoint) == (first.run_dir, first.checkpoint)
    tell_started_ranks(RunPlace("runs/b"))
    assert choose_place(None, "fit", Launch("lightning", 1)) == RunPlace("runs/b")


def test_a_restart_of_torchrun_takes_the_name_of_the_start_before() -> None:
    launch = Launch("torchrun", 0, 2)
    first = choose_place(None, "fit", launch, "e5", 1)
    again = choose_place(None, "fit", launch, "e5", 2, {"run_dir": first.run_dir})
    assert again.run_dir == first.run_dir and again.job == first.job == "torchrun e5"
    assert (first.restarts, again.restarts) == (0, 1)


def test_a_batch_job_has_its_own_name() -> None:
    assert choose_place(None, "fit", BATCH).run_dir == "runs/fit-slurm-17-ab12cd"


def test_second_node_without_a_launcher_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(ValueError, match="--run_dir"):
        choose_place(None, "fit", SHELL)


def folder_of(job: str | None, folder: Path, **more: Any) -> Path:
    """Writes a run folder as a fit of a job leaves it that was killed after its second checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"step": 1}, folder / "checkpoints" / "last.ckpt")
    attempt = {"started": "2026-11-30T00:00:00+00:00", **({"job": job, "restarts": 0} if job else {})}
    summary = {"task": "fit", "status": "running", "attempts": [attempt], **more}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_same_job_goes_on_in_its_folder_and_nobody_else(tmp_path: Path) -> None:
    own = folder_of("slurm here 17", tmp_path / "own", wandb_id="ab12")
    last = str(own / "checkpoints" / "last.ckpt")
    assert choose_place(str(own), "fit", BATCH).checkpoint == last
    assert choose_place(str(own), "fit", BATCH).wandb_id == "ab12"  # also of a start without a checkpoint
    assert choose_place(str(own), "fit", SHELL).wandb_id is None
    assert choose_place(str(own), "test", BATCH).checkpoint is None
    assert choose_place(str(own), "fit", SHELL).checkpoint is None
    other = Launch("shell", job="slurm here 18", name="slurm-18-ab12cd", slurm_job="18")
    assert choose_place(str(own), "fit", other).checkpoint is None
    assert choose_place(str(folder_of(None, tmp_path / "by hand")), "fit", BATCH).checkpoint is None
    (own / "checkpoints" / "last.ckpt").write_bytes(b"torn")
    torch.save({"step": 0}, own / "checkpoints" / "epoch=0-step=5.ckpt")
    assert str(choose_place(str(own), "fit", BATCH).checkpoint).endswith("epoch=0-step=5.ckpt")


def test_the_next_torchrun_of_the_same_name_leaves_a_finished_run_alone(tmp_path: Path) -> None:
    launch = Launch("torchrun", 0, 2, job="torchrun 100")
    cut_short = folder_of("torchrun 100", tmp_path / "a", complete=False)
    assert choose_place(str(cut_short), "fit", launch, "e5", 1).checkpoint is not None
    finished = folder_of("torchrun 100", tmp_path / "b", complete=True)
    assert choose_place(str(finished), "fit", launch, "e5", 1).checkpoint is None
    assert (
        choose_place(str(finished), "fit", launch, "e5", 2).checkpoint is not None
    )  # a restart has nothing left to do


def test_folder_with_checkpoints_is_occupied(tmp_path: Path) -> None:
    refuse_occupied(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "summary.json").touch()  # a run that died before its first checkpoint may be started again
    refuse_occupied(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        refuse_occupied(tmp_path)
