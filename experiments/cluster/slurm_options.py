"""How a run is submitted to SLURM (config group ``slurm``); its ranks are those of ``trainer``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REQUEUES = 50
"""How often a submitted job goes back into the queue where ``cluster.requeues`` says nothing."""

_OURS = {
    **dict.fromkeys(("--partition", "-p"), "slurm.partition"),
    **dict.fromkeys(("--time", "-t"), "slurm.time"),
    **dict.fromkeys(("--nodes", "-N"), "slurm.nodes"),
    **dict.fromkeys(("--ntasks-per-node", "--ntasks", "-n"), "slurm.tasks_per_node"),
    **dict.fromkeys(("--gpus-per-node", "--gpus", "-G", "--gres"), "slurm.gpus_per_node"),
    **dict.fromkeys(("--cpus-per-task", "-c"), "slurm.cpus_per_task"),
    "--signal": "slurm.signal_s",
    **dict.fromkeys(("--requeue", "--no-requeue"), "cluster.requeues"),
    **dict.fromkeys(("--output", "-o", "--error", "-e", "--open-mode"), "run_dir, where the log lies"),
    **dict.fromkeys(("--chdir", "-D", "--array", "-a", "--wrap", "--parsable"), "none: one job, from this folder"),
}
"""Options of sbatch that have a setting → that setting."""

_LIMITS = (
    r"(?P<m>\d+)(:(?P<s>\d+))?",
    r"(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)",
    r"(?P<d>\d+)-(?P<h>\d+)(:(?P<m>\d+)(:(?P<s>\d+))?)?",
)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


@dataclass(frozen=True)
class SlurmOptions:
    """What a run asks of SLURM where ``--slurm`` submits it (config group ``slurm``).

    Args:
        enabled: submit the command as a batch job and end, instead of running it here (``--slurm`` is short for it).
        partition: of SLURM; null = the default one.
        time: limit of one start, as SLURM writes it (``90`` minutes, ``12:00:00``, ``2-00:00:00``); null = that of the
            partition.
        nodes: null = ``trainer.num_nodes``.
        tasks_per_node: ranks on each node; null = ``trainer.devices``, and where that is "auto" one per GPU.
        gpus_per_node: null = one per task, and none with ``trainer.accelerator cpu``.
        cpus_per_task: CPUs of a rank and its data workers; null = the cluster's own number.
        signal_s: seconds ahead of the time limit at which SLURM warns all ranks, to be saved and queued again; 0 =
            never.
        options: further options of sbatch, such as ``--account=faces``.

    Raises:
        ValueError: a number out of range, a time that SLURM cannot read, a warning earlier than the start, or an
            option that has a setting.
    """

    enabled: bool = False
    partition: str | None = None
    time: str | None = None
    nodes: int | None = None
    tasks_per_node: int | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    signal_s: int = 180
    options: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("tasks_per_node", 1), ("cpus_per_task", 1), ("gpus_per_node", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"slurm.{name}: found {value}, expected at least {least}")
        if not 0 <= self.signal_s <= 65_535:
            raise ValueError(f"slurm.signal_s: found {self.signal_s}, expected seconds from 0 to 65535")
        limit = seconds_of(self.time) if self.time is not None else None
        if limit is not None and limit <= self.signal_s:
            raise ValueError(
                f"slurm.signal_s: found a warning {self.signal_s} s ahead of a limit of {limit} s (slurm.time "
                f"{self.time}), expected less than the limit"
            )
        for option in self.options:
            name = option.partition("=")[0]
            if not name.startswith("-"):
                raise ValueError(f"slurm.options: found '{option}', expected options such as --account=faces")
            if name in _OURS:
                raise ValueError(f"slurm.options: found {option}, expected {_OURS[name]}")


@dataclass(frozen=True)
class SlurmWorld:
    """The ranks that a job is submitted for.

    Attributes:
        nodes: hosts.
        tasks_per_node: ranks on each.
        gpus_per_node: 0 = none.
    """

    nodes: int
    tasks_per_node: int
    gpus_per_node: int


def slurm_world(options: SlurmOptions, trainer: Mapping[str, Any]) -> SlurmWorld:
    """Returns the ranks that both groups of settings ask for.

    Args:
        options: the group ``slurm``.
        trainer: the group ``trainer``: ``devices``, ``num_nodes``, ``accelerator``.

    Raises:
        ValueError: they contradict each other.
    """
    nodes = options.nodes or int(trainer["num_nodes"])
    if trainer["num_nodes"] not in (1, nodes):
        raise ValueError(f"slurm.nodes: found {nodes} with trainer.num_nodes {trainer['num_nodes']}, expected as many")
    devices, accelerator = trainer["devices"], trainer["accelerator"]
    asked = None
    if devices not in ("auto", -1, "-1"):
        if not re.fullmatch(r"[1-9]\d*", str(devices)):
            raise ValueError(
                f"trainer.devices: found {devices} with --slurm, expected a number: SLURM chooses which devices"
            )
        asked = int(devices)
    on_cpu = accelerator == "cpu"
    tasks = options.tasks_per_node or asked or options.gpus_per_node or 1
    if asked not in (None, tasks):
        raise ValueError(f"slurm.tasks_per_node: found {tasks} with trainer.devices {asked}, expected as many")
    gpus = options.gpus_per_node
    if gpus is None:
        gpus = 0 if on_cpu else tasks
    if on_cpu and gpus:
        raise ValueError(f"slurm.gpus_per_node: found {gpus} with trainer.accelerator cpu, expected 0")
    if accelerator in ("gpu", "cuda") and gpus < tasks:
        raise ValueError(
            f"slurm.gpus_per_node: found {gpus} for {tasks} tasks with trainer.accelerator {accelerator}, expected a "
            "GPU for each"
        )
    return SlurmWorld(nodes, tasks, gpus)


def requeues_of(options: SlurmOptions, asked: int | None) -> int:
    """Returns how often a submitted job goes back into the queue.

    Args:
        options: the group ``slurm``.
        asked: ``cluster.requeues``; None = as often as is usual for a job that is warned.

    Raises:
        ValueError: it is to go back, and nobody will warn it.
    """
    if asked is None:
        return REQUEUES if options.signal_s else 0
    if asked and not options.signal_s:
        raise ValueError(
            f"slurm.signal_s: found 0 with cluster.requeues {asked}, expected a warning ahead of the limit: the job is "
            "put back into the queue at it"
        )
    return asked


def seconds_of(limit: str) -> int | None:
    """Returns the seconds of a time limit as SLURM writes it; None = without end.

    Raises:
        ValueError: it is none.
    """
    if limit.upper() in ("UNLIMITED", "INFINITE"):
        return None
    for pattern in _LIMITS:
        if match := re.fullmatch(pattern, limit):
            return sum(_SECONDS[unit] * int(number) for unit, number in match.groupdict().items() if number)
    raise ValueError(f"slurm.time: found '{limit}', expected minutes, hours:minutes:seconds or days-hours:minutes")
