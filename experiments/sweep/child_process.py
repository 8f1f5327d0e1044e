"""A training as a child process that does not outlive the runner unnoticed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from experiments.command_line.child_output import exit_text, last_error_line
from experiments.sweep.run_lock import RunLock
from experiments.sweep.sweep_run import SweepRun

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt.

    Attributes:
        status: finished, failed or interrupted.
        error: exit code and error line of one that failed.
    """

    status: Literal["finished", "failed", "interrupted"]
    error: str = ""


class ChildProcess:
    """One attempt at a run: started, followed, ended.

    The child leads a session of its own, so that Ctrl-C reaches it through the runner alone, and holds the run's lock.
    SLURM signals every process of a step, in whatever session: the child is started deaf to SIGUSR1 and SIGUSR2, and
    hears of the end of its time from the runner alone. On Linux the kernel sends it SIGTERM when the runner dies;
    elsewhere it goes on, and its lock keeps others out.

    Args:
        run: the run; its lock must be ours.
        lock: the lock.
        environment: variables to set on top of ours.
    """

    def __init__(self, run: SweepRun, lock: RunLock, environment: Mapping[str, str]) -> None:
        self.run = run
        self.lock = lock
        self.checkpoint = run.prepare()
        self._offset = run.stderr_path.stat().st_size if run.stderr_path.exists() else 0
        self.started = time.monotonic()
        with run.stdout_path.open("ab") as stdout, run.stderr_path.open("ab") as stderr:
            self.process = subprocess.Popen(
                run.command(self.checkpoint),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=(lock.fd,),
                preexec_fn=before_exec(),
            )
        lock.note(self.process.pid)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def poll(self, stopped: bool = False) -> Outcome | None:
        """Returns what came of the attempt; None while it runs. The lock is released at the end.

        Args:
            stopped: whether the runner is ending: what does not finish now was interrupted and did not fail.
        """
        code = self.process.poll()
        if code is None:
            return None
        if code < 0:  # it had no chance to end its data workers or ranks
            self._signal_all(signal.SIGKILL)
        if self.run.is_finished():
            outcome = Outcome("finished")
        elif stopped or self.run.has_stopped(code):
            outcome = Outcome("interrupted")
        else:
            outcome = Outcome("failed", f"{exit_text(code)}: {last_error_line(self.run.stderr_path, self._offset)}")
        self.run.close_attempt(outcome.status, outcome.error)
        self.lock.release()
        return outcome

    def stop(self) -> None:
        """Asks it to stop, as a scheduler would: after its step, and saved."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and everything it started."""
        self._signal_all(signal.SIGKILL)
        self.process.wait()

    def _signal_all(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def before_exec() -> Callable[[], None]:
    """Returns what a child does between fork and exec: be deaf to the step's signals, and die with its parent."""
    libc = ctypes.CDLL(None)  # loaded before the fork: little is safe after it
    parent = os.getpid()

    def prepare() -> None:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a runner in the background: the child is to hear us
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not sys.platform.startswith("linux"):
            return
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # died before we asked
            os._exit(1)

    return prepare
