"""The runs of a sweep as an array job through submitit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from experiments.cluster.launch import ranks_of_one_task
from experiments.sweep.child_process import ChildProcess, before_exec
from experiments.sweep.local_runner import POLL_S
from experiments.sweep.progress_table import progress_table, rows_from_folders
from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import PROJECT, SweepFile
from experiments.sweep.sweep_run import SweepRun
from synfer.foundation.folder_lock import FolderLock
from synfer.foundation.json_file import read_json_if_whole, write_json

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

EXECUTORS = ("slurm", "local", "debug")
START_TIMEOUT_S = 600.0
"""How long tasks wait for task 0's decision: nodes may start minutes apart."""

STOP_TIMEOUT_S = 75.0
"""How long a run may take to stop before it is killed: SLURM's warning comes 90 s ahead of the end (signal_delay_s)."""

REQUEUES, TIME_LIMIT_MIN = 100, 60
"""How often a run out of time is queued again, and the time limit of a start, where nothing else is said."""


class RunFailed(Exception):
    """A run of an array job failed: exit code and error line."""


@dataclass
class ArrayTask:
    """What one task of the array job does; submitit pickles it.

    The run is decided upon when the task starts, not when it is submitted: a run that has finished by then is kept, one
    that another process is at work on is left to it, a broken one goes on from its last checkpoint.

    Attributes:
        run: the run.
        environment: variables for it.
        fails_loudly: raise for a failed run, so that SLURM's accounting shows a failed task.
    """

    run: SweepRun
    environment: dict[str, str]
    fails_loudly: bool = True
    child: ChildProcess | None = None

    def __call__(self) -> str:
        """Returns what became of the run.

        With several tasks per run (one rank each) task 0 holds the lock and says whether the run starts, and from which
        checkpoint; the others only take part.

        Raises:
            RunFailed: the run failed, or task 0 said nothing.
        """
        environment = {**self.environment, **ranks_of_one_task()}
        if self.run.is_finished():
            self._publish("skipped")
            return "skipped"
        if not _is_first_task():
            return self._follow_rank_zero(environment)
        lock = self.run.lock
        if not lock.take(patience_s=2):
            found = f"locked: {lock.holder()}"
            self._publish(found)
            return found
        self.child = ChildProcess(self.run, lock, environment)
        self._publish("started", self.child.checkpoint)
        while (outcome := self.child.poll()) is None:
            time.sleep(POLL_S)
        if outcome.status == "failed" and self.fails_loudly:
            raise RunFailed(f"{self.run.name}: {outcome.error}")
        return outcome.status

    def _follow_rank_zero(self, environment: dict[str, str]) -> str:
        """Waits for task 0, then starts this task's rank from the same checkpoint."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (decision := read_json_if_whole(self._decision_path)).get("attempt") != _attempt():
            if time.monotonic() > deadline:
                raise RunFailed(f"{self.run.name}: task 0 said nothing in {START_TIMEOUT_S:.0f} s, expected a start")
            time.sleep(POLL_S)
        if decision["outcome"] != "started":
            return str(decision["outcome"])
        command = self.run.command(Path(decision["checkpoint"]) if decision["checkpoint"] else None)
        done = subprocess.run(command, env={**os.environ, **environment}, preexec_fn=before_exec())
        return f"exit code {done.returncode}"

    def _publish(self, outcome: str, checkpoint: Path | None = None) -> None:
        """Tells the other tasks of this attempt, where there are any, what task 0 does."""
        if _is_first_task() and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            said = {"attempt": _attempt(), "outcome": outcome, "checkpoint": str(checkpoint) if checkpoint else None}
            write_json(self._decision_path, said)

    @property
    def _decision_path(self) -> Path:
        return self.run.run_dir / "slurm_task0.json"

    def checkpoint(self) -> DelayedSubmission:
        """Ends the run before its time is up and returns what is to be queued again (submitit calls this)."""
        from submitit.helpers import DelayedSubmission

        if self.child is not None:
            self.child.stop()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self.child.poll(stopped=True) is None:
                if time.monotonic() > deadline:
                    self.child.kill()
                time.sleep(POLL_S)
        return DelayedSubmission(ArrayTask(self.run, self.environment, self.fails_loudly))


def submit(
    sweep: SweepFile,
    runs: Sequence[SweepRun],
    sweep_dir: Path,
    environment: dict[str, str],
    executor: str,
    jobs: int | None,
    parameters: dict[str, Any],
    requeues: int,
    console: Console,
) -> int:
    """Submits what is neither finished, at work nor in the queue as one array job.

    On SLURM it returns at once; the local and the debug executor (no scheduler needed) are waited for.

    Args:
        sweep: the sweep file.
        runs: its runs.
        sweep_dir: where submitit keeps its files, in ``submitit``.
        environment: variables for every run.
        executor: slurm, local or debug.
        jobs: tasks of the array at a time; None = no bound.
        parameters: submitit's, such as ``timeout_min``, ``gpus_per_node``, ``slurm_partition``.
        requeues: how often a run out of time is queued again.
        console: where to print.

    Returns:
        0, or 1 when a run that was waited for failed.

    Raises:
        SweepError: submitit or SLURM is missing, a parameter that submitit does not know, SLURM refuses the job, or
            another process is submitting the same sweep.
    """
    try:
        import submitit
    except ImportError:
        raise SweepError("found no submitit, expected it for --slurm: pip install 'synfer[slurm]'") from None
    # The node imports this package to unpickle the task, wherever it starts.
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    requeues = int(parameters.pop("slurm_max_num_timeout", requeues))  # submitit's own name for it
    try:
        limit = {"slurm_max_num_timeout": requeues} if executor == "slurm" else {}
        backend = submitit.AutoExecutor(folder=sweep_dir / "submitit" / "%j", cluster=executor, **limit)
        settings = {"timeout_min": TIME_LIMIT_MIN, **parameters}
        backend.update_parameters(name=sweep.name, slurm_array_parallelism=jobs, **settings)
    except (NameError, AssertionError, RuntimeError) as error:
        raise SweepError(f"--slurm_executor {executor}: {' '.join(str(error).split())}") from None
    with FolderLock(sweep_dir / "submit.lock") as lock:
        if not lock.take(patience_s=60):
            raise SweepError(f"{sweep_dir}: found another process submitting it ({lock.holder()}), expected one")
        rows = rows_from_folders(runs)
        todo = [row for row in rows if row.status not in ("finished", "running", "pending", "submitted")]
        submitted = _submit(backend, [ArrayTask(row.run, environment, executor != "debug") for row in todo])
        for row, job in zip(todo, submitted, strict=True):
            row.status, row.note = "submitted", f"job {job.job_id}"
            if executor == "slurm":
                row.run.note_job(job.job_id)
    if executor == "slurm":
        console.print(progress_table(rows, sweep.metric))
        if todo:
            console.print(
                f"each start may take {settings.get('slurm_time', settings['timeout_min'])} min (--slurm_parameter "
                f"timeout_min=N); a run out of time is queued again, at most {requeues} times (--requeues N)"
            )
        console.print("the same command with --status tells how far they are")
        return 0
    try:
        for job in submitted:
            job.exception()  # waits; what came of it is in the run folder
    except KeyboardInterrupt:
        for job in submitted:
            job.cancel(check=False)
        raise
    rows = rows_from_folders(runs)
    console.print(progress_table(rows, sweep.metric))
    return 1 if any(row.status not in ("finished", "running") for row in rows) else 0


def _submit(backend: Any, tasks: Sequence[ArrayTask]) -> list[Any]:
    """Hands tasks to submitit as one array.

    Raises:
        SweepError: SLURM refuses them, in its own words: an unknown partition, more than a node has.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if not tasks:
        return []
    try:
        with backend.batch():
            return [backend.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line), lines[0] if lines else type(error).__name__)
        raise SweepError(f"SLURM refuses the job: {' '.join(said.split())}") from None


def _is_first_task() -> bool:
    return int(os.environ.get("SLURM_PROCID", "0")) == 0


def _attempt() -> str:
    """Names this start of the job: the id, which a requeued job keeps, and how often it was requeued."""
    return f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
