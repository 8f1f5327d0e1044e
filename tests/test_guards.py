"""What a machine does to a run: a disk that refuses, a clock set back, W&B that dies. One line, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

import train
from callbacks.recording import wandb_run
from callbacks.recording.atomic_checkpoint_io import AtomicCheckpointIO
from callbacks.recording.wandb_run import WandbRun
from experiments.command_line import run_folder
from experiments.command_line.run_folder import choose_place
from synfer.foundation.checkpoint_file import last_whole_checkpoint
from tests.fixtures.processes import ended
from tests.fixtures.refusing_disk import refusing_disk
from tests.fixtures.wandb_server import WandbServer

ROOT = Path(train.__file__).parent


def error_line(args: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Returns exit code and the only line about an error."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        train.main(args)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1, lines
    return int(caught.value.code or 0), lines[0]


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_is_read_only(
    exists: bool, tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "disk" / "run"
    (run if exists else run.parent).mkdir(parents=True)
    with refusing_disk(tmp_path / "disk"):
        code, line = error_line(["fit", *tiny_run, "--trainer.logger=false", f"--run_dir={run}"], capfd)
    assert code == 2 and "found a file system that is read-only, expected one that can be written to" in line
    assert str(run) in line and list((tmp_path / "disk").rglob("*")) == ([run] if exists else [])


@pytest.mark.parametrize(("reason", "said"), [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "quota used up")])
def test_a_disk_that_is_full_for_checkpoints_alone(
    reason: int, said: str, tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """``torch.save`` writes by itself; what the system refuses comes from the file that is flushed."""
    run = tmp_path / "run"
    words = ["fit", *tiny_run, "--trainer.logger=false", f"--run_dir={run}"]
    train.main(words)
    kept = (run / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.MonkeyPatch.context() as patch:

        def full(*args: Any) -> None:
            raise OSError(reason, os.strerror(reason), str(run / "checkpoints" / "last.ckpt"))

        patch.setattr("callbacks.recording.atomic_checkpoint_io._make_newest", full)
        code, line = error_line([*words, "--trainer.max_epochs=2", f"--ckpt_path={run}"], capfd)
    assert code == 1 and said in line and "last.ckpt" in line
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == kept
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    assert not list((run / "checkpoints").glob(".*"))
    train.main([*words, "--trainer.max_epochs=2", f"--ckpt_path={run}"])  # and with room again it goes on
    assert json.loads((run / "summary.json").read_text())["steps"] == 4


class SetBack(Callback):
    """Sets the clock back by a day at each step, for all that ask Python's ``time``."""

    days = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        SetBack.days += 1


def test_a_clock_that_is_set_back(tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, run = time.time, tmp_path / "run"
    monkeypatch.setattr(SetBack, "days", 0)
    monkeypatch.setattr(time, "time", lambda: real() - 86400 * SetBack.days)
    back = json.dumps({"class_path": "tests.test_guards.SetBack"})
    train.main(["fit", *tiny_run, f"--trainer.callbacks+={back}", "--trainer.logger=false", f"--run_dir={run}"])
    found = json.loads((run / "summary.json").read_text())
    assert SetBack.days == 2 and found["status"] == "finished"
    assert 0 < found["wall_s"] < 3600 and 0 < found["cpu_s"] < 3600


def test_the_checkpoint_that_was_written_last_is_the_newest(tmp_path: Path) -> None:
    io, folder = AtomicCheckpointIO(), tmp_path / "checkpoints"
    io.save_checkpoint({"step": 1}, folder / "step=1.ckpt")
    tomorrow = time.time() + 86400  # as it was when the first was written
    os.utime(folder / "step=1.ckpt", (tomorrow, tomorrow))
    io.save_checkpoint({"step": 2}, folder / "step=2.ckpt")
    assert last_whole_checkpoint(folder) == folder / "step=2.ckpt"
    io.save_checkpoint({"step": 2}, folder / "last.ckpt")
    assert last_whole_checkpoint(folder) == folder / "last.ckpt"


def test_a_run_of_the_same_second_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a clock was set back by an hour, an hour later."""

    class Stopped(datetime):
        @classmethod
        def now(cls, zone: Any = None) -> Stopped:
            return cls(2026, 1, 1, tzinfo=zone)

    monkeypatch.setattr(run_folder, "datetime", Stopped)
    monkeypatch.delenv("NODE_RANK", raising=False)
    launch = run_folder.Launch("shell")
    names = {choose_place(None, "fit", launch).run_dir for _ in range(50)}
    assert len(names) > 45 and all(name.startswith("runs/fit-20260101T000000Z-") for name in names)


def test_pictures_are_new_by_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for name in ("old", "changed"):
        (samples / f"{name}.png").write_bytes(b"before")
    logger, logged = WandbRun(tmp_path), []
    monkeypatch.setattr(wandb_run.WandbLogger, "log_image", lambda self, key, images, *rest: logged.append(key))
    for name in ("new", "changed"):
        (samples / f"{name}.png").write_bytes(b"after all")
        os.utime(samples / f"{name}.png", (1e9, 1e9))  # long before the run began, by the clock
    logger.log_new_pictures(samples)
    logger.log_new_pictures(samples)
    assert logged == ["samples/changed", "samples/new"]


@pytest.mark.slow
def test_wandb_that_dies_in_the_middle(tiny_run: list[str], tmp_path: Path) -> None:
    """Training goes on to its end, the end is not waited for without end, and all that was logged is on this disk."""
    run = tmp_path / "run"
    slow = json.dumps({"class_path": "tests.fixtures.slow_steps.SlowSteps", "init_args": {"seconds": 2.0}})
    words = ["fit", *tiny_run, "--trainer.max_epochs=3", f"--trainer.callbacks+={slow}", f"--run_dir={run}"]
    with WandbServer() as server:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words],
            cwd=ROOT,
            env={**os.environ, **server.environment(), "WANDB_FINISH_TIMEOUT": "10"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not any(map(server.history, list(server.runs))) and process.poll() is None:
            time.sleep(0.1)
        after = len((run / "steps.jsonl").read_text().splitlines())
    said, error = ended(process)
    assert process.returncode == 0 and "Traceback" not in error, error[-3000:]
    assert 0 < after < 6 and "finished after 6 steps" in said
    found = json.loads((run / "summary.json").read_text())
    assert (found["status"], found["steps"]) == ("finished", 6) and (run / "checkpoints" / "last.ckpt").is_file()
    assert len((run / "metrics.csv").read_text().splitlines()) > 6
    assert list((run / "wandb").glob("run-*/run-*.wandb"))  # `wandb sync` sends it later
