"""What a user may say about ranks that others start (config group ``cluster``)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterOptions:
    """How long ranks wait for each other, and how often a job goes back into the queue (config group ``cluster``).

    Args:
        timeout_s: seconds after which a collective that some rank does not join ends the run; a pool that one rank
            fills more slowly than the others must fit into it. A strategy with a time-out of its own keeps that.
        silence_s: seconds without a sign of life after which a rank of torchrun or SLURM counts as lost, with its host.
        arrival_s: seconds that ranks wait at the start for one that has not come.
        requeues: how often SIGUSR1 or SIGUSR2 puts a batch job of SLURM back into the queue, over all its starts; 0 =
            never; null = never, and 50 times where ``--slurm`` has submitted it.

    Raises:
        ValueError: a time that is not positive, or a negative number of requeues.
    """

    timeout_s: float = 1800.0
    silence_s: float = 60.0
    arrival_s: float = 600.0
    requeues: int | None = None

    def __post_init__(self) -> None:
        for name in ("timeout_s", "silence_s", "arrival_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"cluster.{name}: found {getattr(self, name)}, expected seconds above 0")
        if self.requeues is not None and self.requeues < 0:
            raise ValueError(f"cluster.requeues: found {self.requeues}, expected at least 0")
