"""The run folder (C5): one name on all ranks, found again by a restart of the same job, and no run over another."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from experiments.cluster.launch import Launch
from synfer.foundation.checkpoint_file import last_whole_checkpoint
from synfer.runs.run_end import is_complete
from synfer.runs.run_format import CHECKPOINTS, read_fit_summary

RUN_DIR_VARIABLE, CHECKPOINT_VARIABLE = "SYNFER_RUN_DIR", "SYNFER_CHECKPOINT"
"""Environment variables by which the first process tells the ranks that it starts where the run lives."""


@dataclass(frozen=True)
class RunPlace:
    """Where a run lives, the same on all its ranks.

    Attributes:
        run_dir: the run folder; nothing is created.
        checkpoint: what a restart of the same job goes on from; None = what the command line says.
        wandb_id: W&B run of an earlier start of the same job, which may have ended before its first checkpoint.
        job: the job that a restart shares; None = nothing starts this run again.
        restarts: how often the job was started before.
    """

    run_dir: str
    checkpoint: str | None = None
    wandb_id: str | None = None
    job: str | None = None
    restarts: int = 0

    def as_record(self) -> dict[str, Any]:
        """Returns what summary.json says of this attempt; {} outside of a job."""
        return {} if self.job is None else {"job": self.job, "restarts": self.restarts}


def choose_place(
    run_dir: str | None, task: str, launch: Launch, start_of: str = "", start: int = 1, before: Mapping[str, Any] = {}
) -> RunPlace:
    """Returns where the run lives; for the first rank, whose choice the others take.

    Without a given folder the name is ``runs/<task>-<UTC time>-<4 hex>``; a batch job of SLURM has its number and a
    hash of the command in place of the time, an ``srun`` typed into an allocation its step, and a restart of torchrun
    takes the name of the start before. A fit goes on from the newest whole checkpoint in its folder where the same job
    has written it, whatever the command line says of a checkpoint.

    Args:
        run_dir: what the user asked for; None = choose.
        task: subcommand, the first part of a chosen name.
        launch: how this process was started.
        start_of: name of a launch by torchrun, which its starts share.
        start: number of this start of it.
        before: what was chosen at the start before; {} at the first.

    Raises:
        ValueError: several nodes without torchrun or SLURM and no ``--run_dir``.
    """
    if launch.kind == "lightning" and RUN_DIR_VARIABLE in os.environ:
        checkpoint = os.environ.get(CHECKPOINT_VARIABLE)
        return RunPlace(run_dir or os.environ[RUN_DIR_VARIABLE], checkpoint, job=launch.job)
    if run_dir:
        chosen = run_dir
    elif before.get("run_dir"):
        chosen = str(before["run_dir"])
    elif launch.name is not None:
        chosen = f"runs/{task}-{launch.name}"
    elif launch.kind == "shell" and int(os.environ.get("NODE_RANK", "0")) > 0:
        raise ValueError(
            f"run_dir: found none on node {os.environ['NODE_RANK']}, expected the same --run_dir on every node "
            "(or a launch by torchrun or SLURM)"
        )
    else:
        chosen = f"runs/{task}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    job = launch.job
    if launch.kind == "torchrun" and job is None:
        job = f"torchrun {start_of}"
    place = RunPlace(chosen, job=job, restarts=launch.restarts + start - 1)
    return _of_the_same_job(place, launch) if task == "fit" and job else place


def tell_started_ranks(place: RunPlace) -> None:
    """Leaves word for the ranks that Lightning's launcher starts from this process, and for lines about errors."""
    os.environ[RUN_DIR_VARIABLE] = place.run_dir
    os.environ.pop(CHECKPOINT_VARIABLE, None)
    if place.checkpoint:
        os.environ[CHECKPOINT_VARIABLE] = place.checkpoint


def _of_the_same_job(place: RunPlace, launch: Launch) -> RunPlace:
    """Returns the place with what an earlier start of the same job has left in the folder."""
    folder = Path(place.run_dir)
    summary = read_fit_summary(folder) or {}
    jobs = [attempt.get("job") for attempt in summary.get("attempts", []) if isinstance(attempt, dict)]
    if place.job not in jobs:
        return place
    # People give the next torchrun the same --rdzv-id; a batch job that runs again finds what it has finished.
    if launch.kind == "torchrun" and place.restarts == 0 and is_complete(summary):
        return place
    found, wandb_id = last_whole_checkpoint(folder / CHECKPOINTS), summary.get("wandb_id")
    return replace(place, checkpoint=None if found is None else str(found), wandb_id=wandb_id)


def refuse_occupied(run_dir: Path, checkpoint: Path | None = None, run_id: str | None = None) -> None:
    """Refuses to train into a folder that holds another run.

    Args:
        run_dir: the run folder.
        checkpoint: what the fit goes on from; None = it begins.
        run_id: the run that this checkpoint is of; None = it does not say (older ones).

    Raises:
        ValueError: another run's checkpoints or record lie in ``run_dir``.
    """
    checkpoints = sorted((run_dir / CHECKPOINTS).glob("*.ckpt"))
    if checkpoint is None:
        if checkpoints:
            raise ValueError(
                f"run_dir '{run_dir}': found the checkpoint {checkpoints[0].name} of an earlier run, expected a new "
                f"folder (or --ckpt_path {checkpoints[0]} to continue that run)"
            )
        return
    if checkpoint.resolve().is_relative_to(run_dir.resolve()):
        return
    summary = read_fit_summary(run_dir) or {}
    if (checkpoints or summary) and (run_id is None or summary.get("run_id") != run_id):
        raise ValueError(
            f"run_dir '{run_dir}': found another run there than that of the checkpoint '{checkpoint}', expected that "
            "run's own folder, or a new one"
        )
