"""How a run ended, told once for summary.json, exit codes, sweeps, comparisons and W&B."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["finished", "stopped", "interrupted", "failed"]


@dataclass(frozen=True)
class RunEnd:
    """The end of a run.

    Attributes:
        status: "finished" = all that was asked; "stopped" = before that, as asked; "interrupted" = from outside, to be
            gone on with; "failed" = an error.
        reason: "epochs" or "steps" (finished); "patience" (early stopping), "time" (``max_time``) or "request" (a
            callback) (stopped); name of the signal (interrupted); the error's line (failed).
        exit_code: 0 for finished and stopped, 128 + number of the signal, 1 for an error.
        complete: whether the run is whole: finished, or stopped by patience. The others can be gone on with.
    """

    status: Status
    reason: str
    exit_code: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.status == "finished" or (self.status, self.reason) == ("stopped", "patience")

    def as_record(self, checkpoint: str | None) -> dict[str, Any]:
        """Returns what summary.json says of it.

        Args:
            checkpoint: the last checkpoint, from which a run that is not complete goes on; None = there is none.
        """
        record: dict[str, Any] = {
            "status": self.status,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "complete": self.complete,
        }
        if not self.complete and checkpoint is not None:
            record["continue_with"] = f"--ckpt_path {checkpoint}"
        return record


def interrupted_by(number: int) -> RunEnd:
    """Returns the end of a run that a signal ended; 0 = an unknown one."""
    if number == 0:
        return RunEnd("interrupted", "stop", 1)
    return RunEnd("interrupted", signal.Signals(number).name, 128 + number)


def is_complete(summary: Mapping[str, Any]) -> bool:
    """Returns whether a summary.json is that of a whole run; older ones know "finished" alone."""
    return bool(summary.get("complete", summary.get("status") == "finished"))


def outcome_of(summary: Mapping[str, Any]) -> str:
    """Returns "finished" for a whole run, however it ended, else its status with the reason: "stopped (time)"."""
    if is_complete(summary):
        return "finished"
    status, reason = str(summary.get("status", "unknown")), summary.get("reason")
    return f"{status} ({reason})" if reason and status != "failed" else status
