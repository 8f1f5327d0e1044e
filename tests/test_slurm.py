"""On a real SLURM: time limits, requeueing, cancelling and refusing lose no step and leave nobody waiting.

Runs where ``squeue`` answers, with two tasks for each of two nodes free, and is skipped loudly elsewhere. It takes
long, for SLURM counts in minutes, and most of it is sleep: ``SYNFER_SLURM_MINUTES`` (default 3) is the time limit of a
start, to be raised where a training takes more than half a minute to begin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import train
from experiments.cluster.slurm_queue import queued_jobs

PROJECT = Path(train.__file__).parent
MINUTES = int(os.environ.get("SYNFER_SLURM_MINUTES", "3"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(queued_jobs() is None, reason="NO SLURM ANSWERS HERE: nothing of requeueing has been tried"),
]


@pytest.fixture(autouse=True)
def _nothing_left_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    OURS.clear()
    yield
    left = {job for job in queued_jobs() or {} if job.partition("_")[0] in OURS}
    if left:
        subprocess.run(["scancel", *sorted(left)], check=False)


OURS: set[str] = set()
"""Numbers of the jobs that a test has submitted."""


def options(seconds: float, epochs: int = 1) -> list[str]:
    """Returns the smallest fit, 14 steps an epoch, each with a sleep in it."""
    slow = {"class_path": "tests.fixtures.slow_steps.SlowSteps", "init_args": {"seconds": seconds}}
    return [
        f"--config={PROJECT / 'configs' / 'classifier' / 'tiny.yaml'}",
        f"--config={PROJECT / 'configs' / 'data' / 'drawn.yaml'}",
        "--data.reader.init_args.count={train: 112, val: 28, test: 28}",
        "--data.batch_size=8",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        f"--trainer.max_epochs={epochs}",
        "--trainer.check_val_every_n_epoch=1",
        f"--trainer.callbacks+={json.dumps(slow)}",
    ]


def environment() -> dict[str, str]:
    own = {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    return {**os.environ, **own, "SYNFER": f"{sys.executable} {PROJECT / 'train.py'}"}


def sbatch(folder: Path, *words: str, tasks: int = 2, nodes: int = 1) -> str:
    """Submits the example of the project with other resources, as a user would, and returns the job's number."""
    file = PROJECT / "examples" / "slurm" / ("one_node.sbatch" if nodes == 1 else "several_nodes.sbatch")
    asked = [f"--nodes={nodes}", f"--ntasks-per-node={tasks // nodes}", "--gpus-per-node=0", "--cpus-per-task=1"]
    asked += [f"--output={folder / 'job.log'}", "--time=60", f"--chdir={PROJECT}"]
    command = ["sbatch", "--parsable", *asked, str(file), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    job = done.stdout.strip().partition(";")[0]
    OURS.add(job)
    return job


def wait_until(happened: Callable[[], object], minutes: float, log: Path | None = None) -> None:
    deadline = time.monotonic() + 60 * minutes
    while not happened():
        said = log.read_text()[-3000:] if log is not None and log.exists() else ""
        assert time.monotonic() < deadline, f"did not happen in time: {said}"
        time.sleep(1)


def steps(run: Path) -> list[dict[str, Any]]:
    path = run / "steps.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def has_left(*jobs: str) -> bool:
    """Whether SLURM answers, and has none of these jobs any more; an empty queue is an answer."""
    queue = queued_jobs()
    return queue is not None and not set(jobs) & set(queue)


def test_a_job_of_two_tasks_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "job.log"
    words = ["--trainer.strategy=ddp", "--trainer.logger=false", f"--run_dir={run}"]
    job = sbatch(tmp_path, *options(2.0, epochs=4), *words)
    wait_until(lambda: len(steps(run)) >= 3, 20, log)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)  # as --signal does when time is nearly up
    wait_until(lambda: summary(run)["status"] == "interrupted", 10, log)
    saved = summary(run)
    assert (saved["reason"], saved["exit_code"]) == ("SIGUSR1", 138)
    wait_until(lambda: (queued_jobs() or {}).get(job) == "pending", 5, log)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
    wait_until(lambda: has_left(job), 30, log)
    end = summary(run)
    assert end["complete"] and end["steps"] == 28, log.read_text()[-3000:]
    assert [attempt["from_step"] for attempt in end["attempts"]] == [0, saved["steps"]]
    assert [attempt["restarts"] for attempt in end["attempts"]] == [0, 1]
    assert [line["step"] for line in steps(run)] == list(range(1, 29))  # none trained twice, none left out
    assert f"job {job} is queued again (1 of 50)" in log.read_text()


def test_a_run_submits_itself_once_and_finishes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["fit", *options(1.0), "--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.logger=false"]
    command = [sys.executable, str(PROJECT / "train.py"), *words, f"--run_dir={run}", "--slurm", "--slurm.time=30"]
    said = []
    for _ in range(2):
        done = subprocess.run(command, cwd=PROJECT, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    job = json.loads((run / "submitted.json").read_text())["job"]
    OURS.add(job)
    assert said[0].startswith(f"job {job} submitted") and f"job {job} is " in said[1] and "not submitted" in said[1]
    log = run / f"slurm-{job}.log"
    wait_until(lambda: has_left(job), 30, log)
    end = summary(run)
    assert end["complete"] and (end["steps"], end["world_size"]) == (7, 2), log.read_text()[-3000:]
    assert [attempt["job"].split()[-1] for attempt in end["attempts"]] == [job]


def test_scancel_saves_and_does_not_come_back(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "job.log"
    job = sbatch(tmp_path, *options(1.0, epochs=40), "--trainer.strategy=ddp", f"--run_dir={run}", nodes=2)
    wait_until(lambda: len(steps(run)) >= 3, 20, log)
    subprocess.run(["scancel", job], check=True)
    wait_until(lambda: has_left(job), 5, log)
    end = summary(run)
    assert (end["status"], end["reason"], end["world_size"]) == ("interrupted", "SIGTERM", 2), log.read_text()[-3000:]
    assert end["steps"] == steps(run)[-1]["step"] and "queued again" not in log.read_text()


def test_a_refusal_ends_all_ranks(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "job.log"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"of another run")
    job = sbatch(tmp_path, *options(0.0), "--trainer.strategy=ddp", f"--run_dir={run}")
    wait_until(lambda: log.exists() and "of an earlier run" in log.read_text(), 20, log)
    wait_until(lambda: has_left(job), 4, log)  # a task that is still importing has to come first
    assert log.read_text().count("of an earlier run") == 1


def test_two_tasks_without_srun_train_or_say_one_line(tmp_path: Path) -> None:
    """An allocation for two, one process: it used to wait for the second for ever."""
    run = tmp_path / "run"
    command = [sys.executable, str(PROJECT / "train.py"), "fit", *options(0.0), "--trainer.logger=false"]
    salloc = ["salloc", "--ntasks=2", "--job-name=name", *command, "--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run(
        [*salloc, f"--run_dir={run}"], cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert summary(run)["world_size"] == 2 and summary(run)["complete"]


def sweep(folder: Path, values: list[int], command: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    path = folder / "sweep.yaml"
    words = ["${env}", "${interpreter}", "${program}", "fit", *command, "${args}"]
    parameters = {"seed_everything": {"values": values}}
    content = {"program": "train.py", "method": "grid", "command": words, "parameters": parameters}
    path.write_text(yaml.safe_dump({**content, "name": "limit"}))
    program = [sys.executable, str(PROJECT / "sweep.py"), str(path), "--sweep_dir", str(folder / "runs")]
    done = subprocess.run([*program, *more], cwd=PROJECT, env=environment(), capture_output=True, text=True)
    for note in folder.glob("runs/*/submitted.json"):
        OURS.add(json.loads(note.read_text())["job"].partition("_")[0])
    return done


def test_an_array_whose_limit_is_shorter_than_an_epoch(tmp_path: Path) -> None:
    """An epoch takes longer than a start may; every run is stopped by its limit at least once."""
    pytest.importorskip("submitit")
    seconds = 1.05 * 60 * MINUTES / 28
    given = [*options(seconds), "--data.batch_size=4"]
    asked = [f"timeout_min={MINUTES}", "cpus_per_task=1", "slurm_signal_delay_s=60"]
    more = ["--slurm", "--requeues", "20", *(f"--slurm_parameter={pair}" for pair in asked)]
    submitted = sweep(tmp_path, [1, 2, 3, 4], given, *more)
    assert submitted.returncode == 0, submitted.stderr[-2000:]
    again = sweep(tmp_path, [1, 2, 3, 4], given, *more)
    assert again.returncode == 0 and "4 submitted" not in again.stdout
    (array,) = OURS  # not doubled
    jobs = {job for job in queued_jobs() or {} if job.partition("_")[0] == array}
    assert len(jobs) == 4
    runs = [tmp_path / "runs" / f"seed_everything={seed}" for seed in (1, 2, 3, 4)]
    wait_until(lambda: has_left(*jobs), 20 * (MINUTES + 3))
    for run in runs:
        end = summary(run)
        assert end["complete"] and end["steps"] == 28, (run / "stderr.log").read_text()[-2000:]
        assert [line["step"] for line in steps(run)] == list(range(1, 29))  # none trained twice, none left out
        assert len(end["attempts"]) > 1 and all(attempt["from_step"] > 0 for attempt in end["attempts"][1:])
        ids = {folder.name.rpartition("-")[2] for folder in (run / "wandb").glob("offline-run-*")}
        assert ids == {end["wandb_id"]}
    assert "4 runs: 4 finished" in sweep(tmp_path, [1, 2, 3, 4], given, "--status").stdout
