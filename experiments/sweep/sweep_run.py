"""One run of a sweep: its folder, its command, what has become of it, and where it goes on."""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
import socket
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import yaml

from experiments.cluster.launch import find_launch
from experiments.cluster.slurm_queue import QueueState
from experiments.cluster.submitted_job import note_submitted_job, submitted_job
from experiments.sweep.grid import expand, value_text
from experiments.sweep.run_lock import RunLock
from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import SweepFile
from synfer.foundation.json_file import read_json_if_whole, write_json
from synfer.runs.run_end import is_complete
from synfer.runs.run_format import CHECKPOINTS, SWEEP, read_summary

Status = Literal["waiting", "submitted", "pending", "running", "finished", "failed", "interrupted", "killed"]
_OWN_OPTIONS = ("--run_dir", "--ckpt_path")


@dataclass
class SweepRun:
    """One run.

    Attributes:
        name: name of the point in the grid, and of the folder.
        run_dir: the run folder.
        launcher: words of the command up to train.py.
        options: words after train.py, without run folder and checkpoint.
        swept: the values that tell this run from the others.
    """

    name: str
    run_dir: Path
    launcher: list[str]
    options: list[str]
    swept: dict[str, Any] = field(default_factory=dict)

    @property
    def lock(self) -> RunLock:
        """A lock of the folder, not yet taken."""
        return RunLock(self.run_dir)

    @property
    def stderr_path(self) -> Path:
        """What the run wrote to stderr, in all its attempts."""
        return self.run_dir / "stderr.log"

    @property
    def stdout_path(self) -> Path:
        """What the run wrote to stdout, in all its attempts."""
        return self.run_dir / "stdout.log"

    def command(self, checkpoint: Path | None = None) -> list[str]:
        """Returns the command line, which continues from a checkpoint where one is given."""
        resume = [f"--ckpt_path={checkpoint}"] if checkpoint else []
        return [*self.launcher, *self.options, f"--run_dir={self.run_dir}", *resume]

    def summary(self) -> dict[str, Any]:
        """Returns summary.json; empty while there is none."""
        return read_summary(self.run_dir)

    def is_finished(self) -> bool:
        """Whether the run came to its end: only the summary knows, an exit code may be that of a stop signal."""
        return is_complete(self.summary())

    def has_stopped(self, exit_code: int) -> bool:
        """Whether an attempt with this exit code ended on purpose (a time limit, a signal) and can be gone on with."""
        found = self.summary()
        stopped = found.get("status") in ("stopped", "interrupted")
        return stopped and not is_complete(found) and found.get("exit_code") == exit_code

    def status(self, queue: Mapping[str, QueueState] | None = None) -> Status:
        """Returns what has become of the run, seen from its folder and from SLURM.

        Args:
            queue: what SLURM has in its queue; None = it was not asked, or does not answer.
        """
        if self.is_finished():
            return "finished"
        if self.lock.is_held():
            return "running"
        attempts, job = self._record().get("attempts", []), self.job()
        if job is not None and queue is not None and job in queue:
            return queue[job]
        if job is not None and queue is None and all(attempt.get("job") != job for attempt in attempts):
            return "submitted"
        return attempts[-1].get("outcome", "killed") if attempts else "waiting"

    def job(self) -> str | None:
        """Returns the number of the SLURM job that the run was last submitted as; None = never."""
        return submitted_job(self.run_dir)

    def note_job(self, job: str) -> None:
        """Notes as which SLURM job the run was submitted."""
        note_submitted_job(self.run_dir, job)

    def error(self) -> str:
        """Returns exit code and error line of the last attempt; empty where it did not fail."""
        attempts = self._record().get("attempts", [])
        return str(attempts[-1].get("error", "")) if attempts else ""

    def metric(self, name: str | None) -> float | None:
        """Returns the newest value of a metric; None where there is none."""
        value = self.summary().get("metrics", {}).get(name)
        return float(value) if isinstance(value, (int, float)) else None

    def checkpoint(self) -> Path | None:
        """Returns the newest whole checkpoint; None where there is none."""
        found = self._checkpoints()
        whole = [path for path in found if zipfile.is_zipfile(path)]  # the index of a zip file is its end
        return max(whole, key=lambda path: path.stat().st_mtime_ns, default=None)

    def prepare(self) -> Path | None:
        """Records a new attempt and returns the checkpoint to continue from; only for whoever holds the lock.

        Truncated checkpoints without a whole one beside them are renamed: the run starts afresh.
        """
        checkpoint = self.checkpoint()
        if checkpoint is None:
            for path in self._checkpoints():
                path.rename(path.with_suffix(".ckpt.broken"))
        attempt: dict[str, Any] = {
            "started": _now(),
            "host": socket.gethostname(),
            "resumed_from": str(checkpoint.relative_to(self.run_dir)) if checkpoint else None,
        }
        if (job := find_launch().slurm_job) is not None:
            attempt["job"] = job
        attempts = self._record().get("attempts", [])
        attempts.append(attempt)
        write_json(
            self.run_dir / SWEEP, {"parameters": self.swept, **self.settings(), "attempts": attempts}, default=str
        )
        return checkpoint

    def close_attempt(self, outcome: Literal["finished", "failed", "interrupted"], error: str = "") -> None:
        """Records how the attempt ended; without this it was killed."""
        record = self._record()
        record["attempts"][-1] |= {"outcome": outcome, **({"error": error} if error else {})}
        write_json(self.run_dir / SWEEP, record, default=str)

    def settings(self) -> dict[str, Any]:
        """Returns what the result depends on: the options and the content of the configs that they name."""
        return {"options": self.options, "configs": {str(path): _content_hash(path) for path in self._configs()}}

    def changed_settings(self) -> str | None:
        """Returns what differs from the settings of an earlier attempt whose work is still there; None = nothing."""
        if not self.is_finished() and not self._checkpoints():
            return None
        before, now = self._record(), self.settings()
        if not before:  # started by hand, perhaps with a line of --dry_run
            config = self.summary().get("config")
            own = all(value_text(_at(config, key)) == value_text(value) for key, value in self.swept.items())
            return None if config and own else "it was not made by this sweep"
        if before.get("options") != now["options"]:
            old, new = set(before.get("options", [])), set(now["options"])
            gone, come = shlex.join(sorted(old - new)), shlex.join(sorted(new - old))
            return f"found {gone or 'less'} then, {come or 'less'} now" if gone or come else "the order of options"
        different = [path for path, content in now["configs"].items() if before.get("configs", {}).get(path) != content]
        return f"{different[0]} has changed since" if different else None

    def _record(self) -> dict[str, Any]:
        return read_json_if_whole(self.run_dir / SWEEP)

    def _checkpoints(self) -> list[Path]:
        return sorted((self.run_dir / CHECKPOINTS).glob("*.ckpt"))

    def _configs(self) -> list[Path]:
        joined = [word.partition("=")[2] for word in self.options if word.startswith(("--config=", "-c="))]
        apart = [after for word, after in itertools.pairwise(self.options) if word in ("--config", "-c")]
        return [Path(name) for name in (*joined, *apart)]


def plan_runs(sweep: SweepFile, sweep_dir: Path, extra: Sequence[str] = ()) -> list[SweepRun]:
    """Returns the runs of a grid, each in its own folder below ``sweep_dir``.

    Args:
        sweep: the sweep file.
        sweep_dir: where the run folders go.
        extra: options for every run. They win over the constants of the file and never over swept values.

    Raises:
        SweepError: no grid, or an extra option that the sweep itself sets.
    """
    points = expand(sweep)
    swept_keys = set(points[0].swept)
    for word in extra:
        key = word.partition("=")[0]
        if key in _OWN_OPTIONS or key.removeprefix("--") in swept_keys:
            raise SweepError(f"{sweep.path}: option {key} after --: the sweep sets it, expected another option")
    runs = []
    for point in points:
        arguments = [*_options(point.constants), *extra, *_options(point.swept)]
        launcher, options = sweep.words(arguments)
        runs.append(SweepRun(point.name, sweep_dir / point.name, launcher, options, point.swept))
    return runs


def refuse_changed(runs: Sequence[SweepRun], sweep_dir: Path) -> None:
    """Refuses to go on in folders that hold results of other settings.

    Raises:
        SweepError: names the first such run, what differs, and the way out.
    """
    changed = [(run, why) for run in runs if (why := run.changed_settings())]
    if changed:
        run, why = changed[0]
        raise SweepError(
            f"{len(changed)} of {len(runs)} runs in {sweep_dir} have other settings; first {run.name}: {why}; "
            "expected the same settings, or another --sweep_dir"
        )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _options(values: dict[str, Any]) -> list[str]:
    return [f"--{key}={value_text(value)}" for key, value in values.items()]


def _at(config: Any, dotted_key: str) -> Any:
    """Returns the value of a nested configuration; None where there is none."""
    for key in dotted_key.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config


def _content_hash(path: Path) -> str | None:
    """Returns a hash of what a YAML file says (comments are free to change); None where it cannot be read."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return None
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
