"""The world that was asked for is the world that trains, and no rank waits for another without end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from experiments.cluster.cluster_options import ClusterOptions
from experiments.cluster.launch import Launch


def fit_to_launch(trainer: Trainer, launch: Launch, options: ClusterOptions) -> None:
    """Compares the ranks that are asked for with those that were started, and bounds how long they wait for each other.

    Signals and requeueing are ours (:class:`~callbacks.agreed_stop.AgreedStop`), not Lightning's, which saves from
    inside a signal, in the middle of whatever step there is, under a name of its own.

    Args:
        trainer: as it was made from the settings.
        launch: how this process was started.
        options: the time-out.

    Raises:
        ValueError: another number of ranks was started, or nobody will start the others.
    """
    asked = trainer.num_devices * trainer.num_nodes
    if trainer.world_size != asked:
        raise ValueError(
            f"trainer.devices × trainer.num_nodes: {trainer.num_devices} × {trainer.num_nodes} = {asked} ranks are "
            f"asked for, found {trainer.world_size} started, expected as many (SLURM: srun with --ntasks-per-node="
            f"{trainer.num_devices}; torchrun: --nproc-per-node={trainer.num_devices})"
        )
    if launch.kind == "shell" and launch.slurm_job is not None:
        if trainer.num_nodes > 1:
            raise ValueError(
                f"trainer.num_nodes={trainer.num_nodes}: found one process in the SLURM allocation {launch.slurm_job}, "
                "expected a task on every node (srun python train.py …)"
            )
        if launch.tasks > trainer.world_size:
            rank_zero_warn(
                f"the SLURM allocation {launch.slurm_job} has {launch.tasks} tasks, and this process was started "
                f"without srun: {trainer.world_size} of them will train (srun python train.py …, or --trainer.devices "
                f"{launch.tasks})"
            )
    strategy: Any = trainer.strategy
    environment = getattr(strategy, "cluster_environment", None)
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False
    if getattr(strategy, "_timeout", None) == default_pg_timeout:
        strategy._timeout = timedelta(seconds=options.timeout_s)
