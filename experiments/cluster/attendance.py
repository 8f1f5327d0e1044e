"""The part that this process takes in the meeting of its ranks, from the first decision to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.cluster.cluster_options import ClusterOptions
from experiments.cluster.launch import Launch
from experiments.command_line.errors import last_report

if TYPE_CHECKING:
    from experiments.cluster.meeting import Decide, Meeting

_REQUEUE_TIMEOUT_S = 60


class Attendance:
    """What this process has to do with the other ranks of its run, and with the scheduler; one a process.

    Ranks of a shell, or that Lightning has started itself, have nothing to do with either: there the first process
    starts and ends the others.
    """

    def __init__(self) -> None:
        self._meeting: Meeting | None = None
        self._requeue: tuple[Launch, int] | None = None
        self._together = False

    def agree(self, launch: Launch, options: ClusterOptions, decide: Decide) -> dict[str, Any]:
        """Returns what the first rank decides; meets the other ranks where others have started them.

        Args:
            launch: how this process was started.
            options: how long to wait for others.
            decide: see :meth:`~experiments.cluster.meeting.Meeting.agree`.

        Raises:
            ValueError: no rank 0 comes, or what ``decide`` raises.
            SystemExit: rank 0 refuses, and has said why.
        """
        if not launch.ranks_meet:
            return dict(json.loads(json.dumps(dict(decide("", 1, {})))))
        from experiments.cluster.meeting import Meeting

        self._meeting = Meeting(launch, options.arrival_s, options.silence_s)
        agreed = self._meeting.agree(decide)
        os.environ.update(self._meeting.group_store)
        return agreed

    def on_lost(self, note: Callable[[str], None]) -> None:
        """Has something done with the line about a lost rank before this process is ended for it."""
        if self._meeting is not None:
            self._meeting.on_lost = note

    def who_has_gone(self) -> str | None:
        """Returns a line about the rank that ended first, where a meeting knows."""
        return None if self._meeting is None else self._meeting.who_has_gone()

    def end_together(self) -> None:
        """Notes that all ranks end now, or that another one was first: this one has nothing to tell them."""
        self._together = True

    def leave(self, code: int, line: str | None) -> None:
        """Ends this rank's part.

        Args:
            code: exit code.
            line: why it ended, for the others, unless all end together; None = no error.
        """
        meeting, self._meeting = self._meeting, None
        if meeting is not None:
            meeting.close(code, None if self._together else line)
        self._together = False

    def requeue_on_signal(self, launch: Launch, at_most: int) -> None:
        """Has the job put back into the queue where SIGUSR1 or SIGUSR2 ends this process; for the first rank of a job.

        Args:
            launch: how this process was started.
            at_most: how often, over all starts of the job; 0 = never.
        """
        is_batch_job = launch.slurm_job is not None and launch.job is not None
        self._requeue = (launch, at_most) if is_batch_job and launch.rank == 0 and at_most > 0 else None

    def requeue(self, exit_code: int) -> None:
        """Puts the job back into the queue where that is wanted, and says so, or why not; never raises.

        SLURM ends the job for it, so nothing comes after.
        """
        asked, self._requeue = self._requeue, None
        if asked is None or exit_code - 128 not in (signal.SIGUSR1, signal.SIGUSR2):
            return
        launch, at_most = asked
        if launch.restarts >= at_most:
            _say(f"job {launch.slurm_job} is not queued again: cluster.requeues {at_most} are used up")
            return
        _say(f"job {launch.slurm_job} is queued again ({launch.restarts + 1} of {at_most})")
        command = ["scontrol", "requeue", str(launch.slurm_job)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_REQUEUE_TIMEOUT_S, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            _say(f"job {launch.slurm_job} could not be queued again: {error}")
            return
        if done.returncode:
            _say(f"job {launch.slurm_job} could not be queued again: {' '.join(done.stderr.split())}")


ATTENDANCE = Attendance()
"""That of this process."""


def end_line(error: BaseException) -> str:
    """Returns why a rank ended, for the others: what it has told its user, else the error itself."""
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C"
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        if code > 128:
            return f"{signal.Signals(code - 128).name} before or after the training"
        return last_report() or f"exit code {code}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
