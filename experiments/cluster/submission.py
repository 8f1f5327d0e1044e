"""One run as a batch job of SLURM: the command that was typed, submitted instead of run."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.cluster.slurm_options import SlurmOptions, SlurmWorld
from experiments.cluster.slurm_queue import queued_jobs
from experiments.cluster.submitted_job import note_submitted_job, submitted_job
from synfer.foundation.folder_lock import FolderLock

SCRIPT, LOCK = "job.sbatch", "submit.lock"
_TIMEOUT_S = 120


def submit(
    options: SlurmOptions,
    world: SlurmWorld,
    requeues: int,
    command: Sequence[str],
    run_dir: Path,
    refuse: Callable[[], None],
) -> str:
    """Submits a command as a job, unless its run folder has one in the queue, and returns a line about it.

    The job is given the world and the folder on its command line, so that nothing is decided twice. Each of its starts
    goes on in the folder (:func:`~experiments.command_line.run_folder.choose_place`).

    Args:
        options: what is asked of SLURM.
        world: the ranks that the job is for.
        requeues: how often the job goes back into the queue at the warning of its time limit.
        command: program and words that were typed.
        run_dir: the run folder; the script and the log lie in it.
        refuse: raises where the job could not begin; asked once it is known that no job has the folder.

    Raises:
        ValueError: sbatch is missing or refuses the job, the queue of a folder that was submitted cannot be seen, or
            somebody else is submitting it.
    """
    if shutil.which("sbatch") is None:
        raise ValueError("--slurm: found no sbatch on PATH, expected SLURM's commands (or no --slurm, to run it here)")
    if (found := _job_of_folder(run_dir)) is not None:
        return found
    refuse()
    with FolderLock(run_dir / LOCK) as lock:
        if not lock.take(patience_s=_TIMEOUT_S):
            raise ValueError(f"run_dir '{run_dir}': found another process submitting it ({lock.holder()})")
        if (found := _job_of_folder(run_dir)) is not None:
            return found
        script = run_dir / SCRIPT
        script.write_text(_script(options, world, requeues, command, run_dir))
        given = ["sbatch", "--parsable", *_asked(options, world, requeues, run_dir), str(script)]
        job = _sbatch(given)
        note_submitted_job(run_dir, job, shlex.join(given))
    return f"job {job} submitted · run folder: {run_dir} · log: {_log(run_dir, job)}"


def program_again(program: str, is_installed: bool) -> list[str]:
    """Returns the words by which a node starts the program that was started here, with the same Python.

    Args:
        program: ``sys.argv[0]``.
        is_installed: whether that is ``synfer`` or ``python -m synfer``.
    """
    return [sys.executable, *(["-m", "synfer"] if is_installed else [str(Path(program).absolute())])]


def _job_of_folder(run_dir: Path) -> str | None:
    """Returns a line about the job of a run folder that SLURM has in its queue; None where there is none.

    Raises:
        ValueError: there was one, and SLURM does not answer.
    """
    job = submitted_job(run_dir)
    if job is None:
        return None
    queue = queued_jobs()
    if queue is None:
        raise ValueError(
            f"run_dir '{run_dir}': found job {job} submitted for it and no answer of squeue, expected one: it may be "
            "in the queue"
        )
    if job not in queue:
        return None
    return f"job {job} is {queue[job]} · run folder: {run_dir} · log: {_log(run_dir, job)} · not submitted again"


def _asked(options: SlurmOptions, world: SlurmWorld, requeues: int, run_dir: Path) -> list[str]:
    log = _log(Path(str(run_dir.absolute()).replace("%", "%%")), "%j")
    found = {
        "job-name": f"synfer-{run_dir.name}",
        "partition": options.partition,
        "time": options.time,
        "nodes": world.nodes,
        "ntasks-per-node": world.tasks_per_node,
        "gpus-per-node": world.gpus_per_node or None,
        "cpus-per-task": options.cpus_per_task,
        "signal": f"USR1@{options.signal_s}" if options.signal_s else None,
        "open-mode": "append",  # one log of all starts
        "output": log,
    }
    words = [f"--{name}={value}" for name, value in found.items() if value is not None]
    return [*words, "--requeue" if requeues else "--no-requeue", *options.options]


def _script(options: SlurmOptions, world: SlurmWorld, requeues: int, command: Sequence[str], run_dir: Path) -> str:
    decided = {
        "slurm.enabled": "false",
        "run_dir": run_dir,
        "trainer.devices": world.tasks_per_node,
        "trainer.num_nodes": world.nodes,
        "cluster.requeues": requeues,
    }
    # From SLURM 22.05 on srun does not take over what sbatch was told of CPUs.
    cpus = [f"--cpus-per-task={options.cpus_per_task}"] if options.cpus_per_task else []
    words = ["srun", *cpus, *command, *(f"--{key}={value}" for key, value in decided.items())]
    note = "# What each start of the job runs; how it was submitted stands in submitted.json."
    return f"#!/bin/bash\n{note}\n{shlex.join(words)}\n"


def _log(run_dir: Path, job: str) -> Path:
    return run_dir / f"slurm-{job}.log"


def _sbatch(command: list[str]) -> str:
    """Returns the number of the job.

    Raises:
        ValueError: SLURM refuses it, in its own words.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"--slurm: sbatch gave no answer ({error}), expected the number of a job") from None
    said = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        line = next((line for line in said if "error" in line), said[-1] if said else f"exit code {done.returncode}")
        raise ValueError(f"SLURM refuses the job: {' '.join(line.split())}")
    job = done.stdout.strip().partition(";")[0]
    if not job.isdigit():
        raise ValueError(f"--slurm: found '{job[:80]}' said by sbatch, expected the number of a job")
    return job
