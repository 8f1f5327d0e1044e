"""The run folder (C5): one name on all ranks, and no run written over another."""

from __future__ import annotations

import os
import secrets
from datetime import datetime, timedelta, timezone
from pathlib import Path

from synfer.runs.run_format import CHECKPOINTS, read_fit_summary

RUN_DIR_VARIABLE = "SYNFER_RUN_DIR"
"""Environment variable by which the first process tells the ranks that it starts which folder it chose."""


def choose_run_dir(run_dir: str | None, task: str) -> Path:
    """Returns the run folder, the same on every rank; nothing is created.

    Without a given folder the name is ``runs/<task>-<UTC time>-<4 hex>``. Every rank runs the whole command again, each
    at its own time, so the name must come from something that they share:

    * ranks that Lightning starts get it from the first process through the environment;
    * ranks of torchrun agree over the key-value store that torchrun keeps for them (also over several nodes);
    * ranks of SLURM derive it from the job, so that a requeued job finds its folder again.

    Args:
        run_dir: what the user asked for; None = choose.
        task: subcommand, the first part of a chosen name.

    Raises:
        ValueError: several nodes without torchrun or SLURM and no ``--run_dir``.
    """
    if run_dir:
        chosen = run_dir
    elif int(os.environ.get("LOCAL_RANK", "0")) > 0 and RUN_DIR_VARIABLE in os.environ:
        chosen = os.environ[RUN_DIR_VARIABLE]
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        chosen = _agree_over_store(_fresh_name(task))
    elif "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        job = os.environ["SLURM_JOB_ID"]
        chosen = f"runs/{task}-slurm-{job}-{os.environ.get('SLURM_STEP_ID', '0')}"
    elif int(os.environ.get("NODE_RANK", "0")) > 0:
        raise ValueError(
            f"run_dir: found none on node {os.environ['NODE_RANK']}, expected the same --run_dir on every node "
            "(or a launch by torchrun or SLURM)"
        )
    else:
        chosen = _fresh_name(task)
    # Inherited by the ranks that Lightning's launcher starts from this process.
    os.environ[RUN_DIR_VARIABLE] = chosen
    return Path(chosen)


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


def _fresh_name(task: str) -> str:
    return f"runs/{task}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def _agree_over_store(proposal: str) -> str:
    """Returns the first proposal that any rank made in this (re)start of a torchrun job."""
    from torch.distributed import TCPStore

    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=60)
    )
    key = f"synfer/run_dir/{os.environ['TORCHELASTIC_RUN_ID']}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return store.compare_set(key, "", proposal).decode()
