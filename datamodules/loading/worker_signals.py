"""Data workers stay at work when a scheduler signals a whole job: the training wants its last batch."""

from __future__ import annotations

import signal
from typing import Any

_PATIENCE_S = 60
"""How long a worker outlives the first SIGTERM, whoever sent it."""


def outlive_signals(worker: int) -> None:
    """Makes a data worker deaf to the signals for which a training stops after its step (``worker_init_fn``).

    SLURM signals every process of a step. A worker that dies of it takes the training with it before anything is
    saved; one that stays ends with the loader. The second SIGTERM, that of a training which ends its workers, counts.

    Args:
        worker: number of the worker.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stay_for_a_while)


def _stay_for_a_while(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(_PATIENCE_S)
