"""Where a run lives: who has started this process, as which rank, of which job, and whether it was started before.

The one place that reads the variables of SLURM and torchrun. Imports neither torch nor Lightning.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["shell", "lightning", "torchrun", "slurm"]

_SPECIAL_STEPS = 0xFFFF_FFF0
"""SLURM numbers the steps that are no ``srun`` of the user (batch, extern, interactive) from here on."""

_LIGHTNING_S_SWITCH = ("bash", "interactive")
"""Names of SLURM jobs under which Lightning starts ranks itself instead of taking tasks for ranks."""

_FIRST_PORT, _PORTS = 25_000, 7_000
"""Ports at which ranks of SLURM meet: below what systems hand out by themselves."""

_LIGHTNING_S_PORT, _LIGHTNING_S_PORTS = 15_000, 10_000
"""Ports from which Lightning takes one for a process group of SLURM."""


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes:
        kind: "shell" = as a program of its own, also inside an allocation of SLURM; "lightning" = as a rank by the
            first process; "torchrun"; "slurm" = as a task of an ``srun``.
        rank: of this process; 0 in a shell.
        world_size: processes that were started as ranks; 1 in a shell, where Lightning is to start the others.
        job: what a restart shares with the start before and nothing else does; None = nothing is started again.
        restarts: how often a scheduler has started the job again; torchrun's hosts do not agree on theirs.
        name: part of the run folder's name that a restart finds again; None = a fresh one is made.
        slurm_job: number of the SLURM job, with that of the array's task, as ``scontrol`` takes it; None outside.
        tasks: tasks of the SLURM allocation that a process in a shell is in; 1 outside.
    """

    kind: Kind
    rank: int = 0
    world_size: int = 1
    job: str | None = None
    restarts: int = 0
    name: str | None = None
    slurm_job: str | None = None
    tasks: int = 1

    @property
    def ranks_meet(self) -> bool:
        """Whether somebody else has started ranks that have to find each other."""
        return self.kind == "torchrun" or (self.kind == "slurm" and self.world_size > 1)

    @property
    def place(self) -> str:
        """Host and process, for people to read."""
        return f"{os.environ.get('SLURMD_NODENAME') or socket.gethostname()}, process {os.getpid()}"


def find_launch(environment: Mapping[str, str] | None = None, words: Sequence[str] | None = None) -> Launch:
    """Returns how this process was started.

    A batch job of SLURM is its number and the command: requeued, it runs its script again from the top, and each
    command finds its own folder. In an interactive allocation somebody types, and nothing is started again by itself.

    Args:
        environment: variables; None = those of the process.
        words: the command line without the program; None = that of the process.

    Raises:
        ValueError: variables of a launcher that are no numbers.
    """
    found = os.environ if environment is None else environment
    try:
        return _find(found, sys.argv[1:] if words is None else words)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"launch: found SLURM's or torchrun's variables incomplete ({error}), expected those of one launcher alone"
        ) from None


def _find(found: Mapping[str, str], words: Sequence[str]) -> Launch:
    slurm = _slurm_job(found)
    is_batch = slurm is not None and found.get("ENVIRONMENT") == "BATCH"
    job = f"slurm {found.get('SLURM_CLUSTER_NAME', '')} {slurm}" if is_batch else None
    restarts = int(found.get("SLURM_RESTART_COUNT") or 0)
    name = f"slurm-{slurm}-{_hash_of(words)}" if is_batch else None
    if "TORCHELASTIC_RUN_ID" in found:
        run_id = found["TORCHELASTIC_RUN_ID"]
        own = None if run_id == "none" else f"torchrun {run_id}"
        return Launch(
            "torchrun", int(found["RANK"]), int(found["WORLD_SIZE"]), job or own, restarts, name, slurm_job=slurm
        )
    if int(found.get("LOCAL_RANK") or 0) > 0:
        return Launch("lightning", int(found["LOCAL_RANK"]), job=job, restarts=restarts, name=name, slurm_job=slurm)
    tasks = int(found.get("SLURM_NTASKS") or 1) if slurm is not None else 1
    if slurm is not None and _is_task(found):
        step = f"slurm-{slurm}-{found['SLURM_STEP_ID']}"
        return Launch("slurm", int(found["SLURM_PROCID"]), tasks, job, restarts, name or step, slurm, tasks)
    return Launch("shell", job=job, restarts=restarts, name=name, slurm_job=slurm, tasks=tasks)


def tell_lightning(launch: Launch, environment: MutableMapping[str, str] | None = None) -> None:
    """Has Lightning see the launch as it is.

    It takes every process of an allocation for one task of many, waits for the others, and asks for a variable that
    ``srun --ntasks`` does not set.

    Args:
        launch: how this process was started.
        environment: variables to change; None = those of the process.
    """
    found = os.environ if environment is None else environment
    if launch.slurm_job is None:
        return
    if launch.kind in ("shell", "lightning"):
        found["SLURM_JOB_NAME"] = _LIGHTNING_S_SWITCH[1]
    elif launch.kind == "slurm" and "SLURM_NTASKS_PER_NODE" not in found:
        spread = found.get("SLURM_STEP_TASKS_PER_NODE", found.get("SLURM_TASKS_PER_NODE", ""))
        even = re.fullmatch(r"(\d+)(\(x\d+\))?", spread)
        if even is not None:
            found["SLURM_NTASKS_PER_NODE"] = even[1]
    if launch.kind == "slurm":  # Lightning's own choice is the same for all steps of a job
        found.setdefault("MASTER_PORT", str(_LIGHTNING_S_PORT + _step_number(found) % _LIGHTNING_S_PORTS))


def ranks_of_one_task(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the variables by which a program that a SLURM task starts is the first process of its own ranks.

    Args:
        environment: of the task; None = that of the process.

    Returns:
        {} outside of SLURM, and where each rank has a task.
    """
    found = os.environ if environment is None else environment
    alone = "SLURM_JOB_ID" in found and int(found.get("SLURM_NTASKS") or 1) == 1
    return {"SLURM_JOB_NAME": _LIGHTNING_S_SWITCH[1]} if alone else {}


def meeting_place(launch: Launch, environment: Mapping[str, str] | None = None) -> tuple[str, int, bool]:
    """Returns host and port of the store at which ranks meet, and whether this process has to keep it.

    torchrun keeps one for its ranks. Under SLURM rank 0 does, on the first node of the step, at a port that follows
    from the job's number; ``SYNFER_MEETING_PORT`` names another.

    Args:
        launch: with ranks that meet.
        environment: variables; None = those of the process.
    """
    found = os.environ if environment is None else environment
    if launch.kind == "torchrun":
        keeps = found.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and launch.rank == 0
        shift = 0 if found.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else 1
        return found["MASTER_ADDR"], int(found["MASTER_PORT"]) + shift, keeps
    port = int(found.get("SYNFER_MEETING_PORT") or _FIRST_PORT + _step_number(found) % _PORTS)
    nodes = found.get("SLURM_STEP_NODELIST") or found.get("SLURM_NODELIST") or "127.0.0.1"
    return found.get("MASTER_ADDR") or first_node(nodes), port, launch.rank == 0


def store_of_restart(launch: Launch, start: int, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the variables by which a process group meets at a store of its own; for rank 0, which will keep it.

    torchrun keeps one store over its restarts and puts nothing before the keys of a start (torch 2.14.1,
    ``torch.distributed.rendezvous``): the group of a second start finds there what ranks of the first have left, and
    gloo waits for them without end.

    Args:
        launch: how this process was started.
        start: number of this start of it, from 1.
        environment: variables; None = those of the process.

    Returns:
        {} where the launcher's store is new.

    Raises:
        OSError: that store cannot be reached any more.
    """
    found = os.environ if environment is None else environment
    if launch.kind != "torchrun" or start == 1 or found.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    with socket.create_connection((found["MASTER_ADDR"], int(found["MASTER_PORT"])), timeout=5.0) as opened:
        here, there = opened.getsockname()[0], opened.getpeername()[0]
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    host = found["MASTER_ADDR"] if here == there else here  # rank 0 may be on another host than the store
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}


def first_node(nodes: str) -> str:
    """Returns the first name of a node list such as ``gpu[03-07,09],login1``."""
    match = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    return nodes if match is None else "".join(part or "" for part in match.groups())


def _is_task(found: Mapping[str, str]) -> bool:
    """Whether ``srun`` has started this process, and neither a shell nor a program that starts the ranks itself."""
    step = found.get("SLURM_STEP_ID")
    own = step is not None and int(step) < _SPECIAL_STEPS and "SLURM_PROCID" in found
    return own and found.get("SLURM_JOB_NAME") not in _LIGHTNING_S_SWITCH


def _step_number(found: Mapping[str, str]) -> int:
    """Returns a number that differs between the steps that are at work at a time."""
    return int(found.get("SLURM_JOB_ID", "0")) * 16 + int(found.get("SLURM_STEP_ID", "0")) % 16


def _slurm_job(found: Mapping[str, str]) -> str | None:
    if "SLURM_ARRAY_JOB_ID" in found and "SLURM_ARRAY_TASK_ID" in found:
        return f"{found['SLURM_ARRAY_JOB_ID']}_{found['SLURM_ARRAY_TASK_ID']}"
    return found.get("SLURM_JOB_ID")


def _hash_of(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:6]
