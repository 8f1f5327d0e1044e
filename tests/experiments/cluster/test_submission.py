"""``--slurm`` submits the command that was typed: with the world that it asks for, into one folder, once."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

import train

PROJECT = Path(train.__file__).parent


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with programs that stand for SLURM's: what ``queue`` holds is queued."""
    folder = tmp_path / "bin"
    folder.mkdir()
    asked, queue, answer = tmp_path / "asked", tmp_path / "queue", tmp_path / "answer"
    answer.write_text("echo 17\n")
    queue.write_text("")
    programs = {
        "sbatch": f'for word in "$@"; do echo "$word" >> {asked}; done\n. {answer}',
        "squeue": f"cat {queue}",
    }
    for name, lines in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(tiny_run: list[str], *more: str) -> list[str]:
    return ["fit", *(word for word in tiny_run if "devices" not in word), *more]


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        train.main(command)
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == "" and len(said.err.splitlines()) == 1, said
    return said.err


def test_the_command_is_submitted_and_not_run(
    slurm: Path, tiny_run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asks = ["--slurm.partition=gpu", "--slurm.time", "12:00:00", "--slurm.nodes=2", "--slurm.cpus_per_task=4"]
    train.main(words(tiny_run, "--slurm", *asks, "--slurm.options=[--account=faces]", "--trainer.devices=2"))
    said = capsys.readouterr().out
    (run,) = (slurm / "runs").iterdir()
    assert said == f"job 17 submitted · run folder: runs/{run.name} · log: runs/{run.name}/slurm-17.log\n"
    asked = (slurm / "asked").read_text().splitlines()
    assert {"--partition=gpu", "--time=12:00:00", "--nodes=2", "--ntasks-per-node=2", "--signal=USR1@180"} <= set(asked)
    assert {f"--output={run}/slurm-%j.log", "--open-mode=append", "--requeue", "--account=faces"} <= set(asked)
    assert not any(word.startswith("--gpus") for word in asked)  # on CPUs
    assert sorted(path.name for path in run.iterdir()) == ["job.sbatch", "submit.lock", "submitted.json"]
    (line,) = [line for line in (run / "job.sbatch").read_text().splitlines() if line.startswith("srun")]
    started = shlex.split(line)
    assert started[:4] == ["srun", "--cpus-per-task=4", sys.executable, str(PROJECT / "train.py")]
    given = train.parse(started[4:])  # what the node reads
    assert (str(given.trainer.devices), given.trainer.num_nodes, given.run_dir) == ("2", 2, f"runs/{run.name}")
    assert given.cluster.requeues == 50 and not given.slurm.enabled and given.trainer.max_epochs == 1
    assert json.loads((run / "submitted.json").read_text())["job"] == "17"


def test_a_folder_has_one_job_at_a_time(slurm: Path, tiny_run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = words(tiny_run, "--slurm", "--run_dir=runs/mine")
    for queue, line in (
        ("", "17 submitted"),
        ("17|PENDING\n", "17 is pending"),
        ("3|RUNNING\n17|RUNNING\n", "running"),
    ):
        (slurm / "queue").write_text(queue)
        train.main(command)
        assert line in capsys.readouterr().out
    assert (slurm / "asked").read_text().count("--parsable") == 1
    (slurm / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert "found job 17 submitted for it and no answer of squeue" in refused(command, capsys)
    (slurm / "bin" / "squeue").write_text("#!/bin/sh\n")
    checkpoints = slurm / "runs" / "mine" / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "last.ckpt").write_bytes(b"of a run that was stopped")
    assert "found the checkpoint last.ckpt of an earlier run" in refused(command, capsys)
    assert (slurm / "asked").read_text().count("--parsable") == 1


@pytest.mark.parametrize("task", ["predict", "test"])
def test_other_commands_are_submitted_alike(
    slurm: Path, tiny_run: list[str], task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main([task, *tiny_run, "--slurm", "--cluster.requeues=0"])
    assert f"run folder: runs/{task}-" in capsys.readouterr().out
    assert "--no-requeue" in (slurm / "asked").read_text().splitlines()


def test_a_job_that_cannot_be_is_one_line(
    slurm: Path, tiny_run: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = words(tiny_run, "--slurm", "--trainer.devices=2")
    assert "slurm.tasks_per_node: found 4" in refused([*two, "--slurm.tasks_per_node=4"], capsys)
    assert "slurm.time: found 'long'" in refused([*two, "--slurm.time=long"], capsys)
    idle = words(tiny_run, "--slurm.partition=gpu")
    assert "--slurm.partition: found no --slurm, expected it" in refused(idle, capsys)
    assert not (slurm / "runs").exists() and not (slurm / "asked").exists()
    (slurm / "answer").write_text("echo 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1\n")
    assert "SLURM refuses the job: sbatch: error: invalid partition" in refused(two, capsys)
    monkeypatch.setenv("RANK", "0")
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    assert "found a rank that torchrun has started" in refused(two, capsys)
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(slurm))
    assert "--slurm: found no sbatch on PATH" in refused(two, capsys)
