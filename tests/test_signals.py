"""Whatever a scheduler signals, all ranks stop after the same step, and the run goes on as if nobody had stopped it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import train
from tests.fixtures.processes import ended
from tests.test_resume import PROJECT, STEPS, assert_same_run, config, fit, in_a_process, last, stop_at, summary

SCHEDULERS = ["SIGTERM", "SIGUSR1", "SIGUSR2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A classifier's run that nobody has stopped, and its configuration."""
    folder = tmp_path_factory.mktemp("whole")
    given = config(folder, "classifier")
    train.main(fit(given, folder / "whole"))
    return folder / "whole", given


def before_steps(how: str, rank: int = 0) -> dict[str, Any]:
    return {"class_path": "tests.fixtures.stop_at.SignalBeforeSteps", "init_args": {"how": how, "rank": rank}}


@pytest.mark.parametrize(("how", "step"), [("SIGUSR1", 4), ("SIGUSR2", 10)])
def test_the_signal_of_a_cluster_saves_the_run(
    whole: tuple[Path, Path], how: str, step: int, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    uninterrupted, given = whole
    with pytest.raises(SystemExit) as stopped:
        train.main(fit(given, tmp_path, callbacks=(stop_at(step, how),)))
    assert stopped.value.code == 128 + getattr(signal, how)
    record = summary(tmp_path)
    assert (record["status"], record["reason"], record["steps"]) == ("interrupted", how, step)
    assert record["exit_code"] == stopped.value.code and not record["complete"]
    assert f"{how}: the run stops after this step and is saved" in capfd.readouterr().err
    train.main(fit(given, tmp_path, f"--ckpt_path={tmp_path / 'run'}"))
    assert_same_run(tmp_path, uninterrupted, step)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL  # nothing of the run is left behind


@pytest.mark.parametrize("how", SCHEDULERS)
def test_a_signal_before_the_first_step_is_recorded(whole: tuple[Path, Path], how: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(fit(whole[1], tmp_path, callbacks=(before_steps(how),)))
    assert stopped.value.code == 128 + getattr(signal, how)
    record = summary(tmp_path)
    assert (record["status"], record["reason"], record["steps"]) == ("interrupted", how, 0)


def test_a_warning_counts_and_not_the_end_that_follows_it(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """SLURM sends SIGUSR1 where it was asked to, and SIGTERM at the limit, maybe within the same step."""
    with pytest.raises(SystemExit) as stopped:
        train.main(fit(whole[1], tmp_path, callbacks=(stop_at(3, "SIGUSR1"), stop_at(3, "SIGTERM"))))
    assert stopped.value.code == 128 + signal.SIGUSR1 and summary(tmp_path)["reason"] == "SIGUSR1"


def test_a_run_that_was_started_deaf_goes_on(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """As a sweep starts its trainings: SLURM signals all processes of a step, and the sweep alone decides."""
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        train.main(fit(whole[1], tmp_path, callbacks=(stop_at(3, "SIGUSR2"),)))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert summary(tmp_path)["complete"] and summary(tmp_path)["steps"] == 2 * STEPS + 3


@pytest.mark.slow
def test_every_process_of_a_step_is_signalled(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """Data workers too, which would take the training with them."""
    command = fit(whole[1], tmp_path, "--data.num_workers=1", "--trainer.max_steps=2000", "--trainer.logger=true")
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "train.py"), *command],
        cwd=PROJECT,
        env={**os.environ, "WANDB_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGUSR1)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = ended(process)
    assert process.returncode in (128 + signal.SIGUSR1, 128 + signal.SIGTERM), error[-2000:]
    assert summary(tmp_path)["status"] == "interrupted" and error.count("the run stops after this step") == 1
    assert last(tmp_path)["global_step"] == summary(tmp_path)["steps"] > 0


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(("how", "rank"), [("SIGUSR1", 1), ("SIGUSR2", 0), ("SIGTERM", 1)])
def test_two_ranks_agree_on_the_step(how: str, rank: int, tmp_path: Path, two_ranks: tuple[Path, Path]) -> None:
    uninterrupted, given = two_ranks
    assert in_a_process(fit(given, tmp_path, callbacks=(stop_at(4, how, rank=rank),))) == 128 + getattr(signal, how)
    record = summary(tmp_path)
    assert (record["status"], record["reason"], record["steps"]) == ("interrupted", how, 4)
    assert record["counts"]["real"] == 2 * 8 * 4 and record["counts_of"] == "all ranks"
    assert in_a_process(fit(given, tmp_path, f"--ckpt_path={tmp_path / 'run'}")) == 0
    assert_same_run(tmp_path, uninterrupted, 4, ranks=2)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same on two ranks of gloo."""
    folder = tmp_path_factory.mktemp("two")
    given = config(folder, "classifier", trainer={"devices": 2, "strategy": "ddp", "max_steps": STEPS + 1})
    assert in_a_process(fit(given, folder / "whole")) == 0
    return folder / "whole", given


@pytest.mark.ddp
@pytest.mark.slow
def test_a_restart_of_torchrun_goes_on_and_is_the_same_run(tmp_path: Path, two_ranks: tuple[Path, Path]) -> None:
    """A rank is killed: its host starts all of them again, and the run goes on from its last checkpoint."""
    uninterrupted, given = two_ranks
    once = {  # inside an epoch: a validation makes one of the averages of batch statistics that ranks hold
        "class_path": "tests.fixtures.stop_at.KilledOnce",
        "init_args": {"step": 3, "rank": 1, "folder": str(tmp_path)},
    }
    command = fit(given, tmp_path, "--checkpoint.every_n_train_steps=1", callbacks=(once,))
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max_restarts=3"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*words, str(PROJECT / "train.py"), *command],
        cwd=PROJECT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, error = ended(process)
    assert process.returncode == 0, error[-3000:]
    attempts = summary(tmp_path)["attempts"]
    assert [attempt["restarts"] for attempt in attempts] == [0, 1] and attempts[1]["from_step"] in (1, 2), began
    assert len({attempt["job"] for attempt in attempts}) == 1 and "goes on from" in error
    assert_same_run(tmp_path, uninterrupted, attempts[1]["from_step"], ranks=2)


@pytest.mark.ddp
@pytest.mark.slow
def test_a_refusal_ends_all_ranks_of_torchrun(tmp_path: Path) -> None:
    given = config(tmp_path, "classifier", trainer={"devices": 2, "strategy": "ddp"})
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"of another run")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", str(PROJECT / "train.py")]
    process = subprocess.Popen(
        [*words, *fit(given, tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _, error = ended(process)
    assert process.returncode != 0 and error.count("found the checkpoint last.ckpt of an earlier run") == 1, error
    assert not json.loads(
        (tmp_path / "run" / "summary.json").read_text() if (tmp_path / "run" / "summary.json").exists() else "{}"
    )
