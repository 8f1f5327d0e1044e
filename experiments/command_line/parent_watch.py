"""A rank that Lightning started ends with the process that started it."""

from __future__ import annotations

import os
import sys
import threading

_PARENT_VARIABLE = "SYNFER_LAUNCHER"


def announce_parent() -> None:
    """Tells the ranks that are about to be started from this process who started them."""
    os.environ[_PARENT_VARIABLE] = str(os.getpid())


def end_with_parent(interval_s: float = 0.5, grace_s: float = 1.5) -> threading.Event:
    """Ends this process soon after the one that started it as a rank has died; elsewhere it does nothing.

    Rank 0 ends its ranks, unless it is killed itself: then they would go on writing, or wait for it for ever. Ranks of
    torchrun and SLURM belong to those.

    Args:
        interval_s: how often to look.
        grace_s: time to end by itself, for rank 0 may be the first at the end of a run.

    Returns:
        Once set, this process may outlive the other.
    """
    done = threading.Event()
    announced = os.environ.get(_PARENT_VARIABLE)
    rank = os.environ.get("LOCAL_RANK", "0")
    if announced is None or rank == "0" or "TORCHELASTIC_RUN_ID" in os.environ:
        return done

    def watch() -> None:
        while os.getppid() == int(announced):
            if done.wait(interval_s):
                return
        if done.wait(grace_s):
            return
        try:
            line = f"error on rank {rank}: the process {announced} that started it has died, so it ends too"
            print(line, file=sys.stderr, flush=True)
        finally:  # whoever read our errors may be gone as well
            os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
    return done
