"""Runs of ``train.py`` one after the other, each in a process of its own, kept while what it came from is the same."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.command_line.child_output import last_error_line
from experiments.command_line.project import shipped
from synfer.runs.run_format import last_checkpoint, read_summary

_POLL_S, _HEARTBEAT_S, _TIMEOUT_S = 0.25, 20.0, 20.0


class DemoError(Exception):
    """What keeps a chain of runs from going on, as one line."""


@dataclass(frozen=True)
class Part:
    """One run of ``train.py``.

    Attributes:
        name: of its run folder.
        options: command line after ``train.py fit``, without the run folder.
        folder: where the run folder lies.
        reads: files whose content decides whether an earlier result is still good.
        task: "fit", "test" or "predict".
        goes_on: whether a stopped run is continued from its last checkpoint, and not begun anew.
        threads: of the process; None = as many as torch takes.
    """

    name: str
    options: tuple[str, ...]
    folder: Path
    reads: tuple[Path, ...] = field(default=())
    task: str = "fit"
    goes_on: bool = False
    threads: int | None = 1

    @property
    def run_dir(self) -> Path:
        """The run folder, seen from the project's folder."""
        return self.folder / self.name

    @property
    def checkpoint(self) -> Path:
        """The run's last checkpoint."""
        return last_checkpoint(self.run_dir)

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder / f"{self.name}.log"

    @property
    def stamp(self) -> Path:
        """File beside the run folder with the fingerprint of what the run came from."""
        return self.folder / f"{self.name}.fingerprint"

    def command(self) -> list[str]:
        """Returns the command line after the interpreter."""
        return [str(shipped("train.py")), self.task, *self.options, f"--run_dir={self.run_dir}"]


class Progress:
    """Prints lines with the time since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def say(self, line: str) -> None:
        """Prints one line."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"[{minutes:2d}:{seconds:02d}] {line}", flush=True)


def do_what_is_missing(part: Part, progress: Progress, run: Callable[[Part, Progress], None]) -> None:
    """Runs a part, unless it finished earlier from the same command line, configs and weights.

    Raises:
        DemoError: it failed.
        KeyboardInterrupt: stopped by the user; the run that was going on has ended.
    """
    wanted = fingerprint(part)
    same = part.stamp.is_file() and part.stamp.read_text() == wanted
    if same and is_finished(part):
        progress.say(f"{part.name}: finished earlier with the same settings, kept")
        return
    if not (same and part.goes_on and part.checkpoint.is_file()):
        shutil.rmtree(part.run_dir, ignore_errors=True)
        part.stamp.unlink(missing_ok=True)
    if part.goes_on:  # known before the end: a stopped run is the beginning of this one
        part.folder.mkdir(parents=True, exist_ok=True)
        part.stamp.write_text(wanted)
    run(part, progress)
    part.stamp.write_text(wanted)


def is_finished(part: Part) -> bool:
    """Whether a run of the part came to its end and left what it is made for."""
    ended = read_summary(part.run_dir).get("status") == "finished"
    return ended and (part.task != "fit" or part.checkpoint.is_file())


def fingerprint(part: Part) -> str:
    """Returns what the result of a part depends on: SHA-256 over its command line and the files it reads."""
    digest = hashlib.sha256("\0".join(part.command()).encode())
    for path in part.reads:
        found = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"missing"
        digest.update(f"\0{path}\0".encode() + found)
    return digest.hexdigest()


def run_part(part: Part, progress: Progress) -> None:
    """Runs one part in a process of its own and tells how far it is.

    Raises:
        DemoError: it failed; the line holds its own error and where its output is.
        KeyboardInterrupt: stopped by the user; the process has ended.
    """
    part.folder.mkdir(parents=True, exist_ok=True)
    command = part.command()
    progress.say(f"{part.name}: python {shlex.join(command)}")
    more = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    if part.goes_on and part.checkpoint.is_file():
        progress.say(f"{part.name}: goes on from {part.checkpoint}")
        more.append(f"--ckpt_path={part.checkpoint}")
    # Nothing of a demo should show up in somebody's W&B account.
    environment = {"WANDB_MODE": "disabled", **os.environ}
    if part.threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(part.threads))
    with part.log.open("a" if part.goes_on else "w") as log:
        # In a session of its own, Ctrl-C reaches it through us, once, and we can wait until it has ended.
        process = subprocess.Popen(
            [sys.executable, *command, *more],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            _follow(process, part, progress)
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0 or read_summary(part.run_dir).get("status") != "finished":
        raise DemoError(
            f"{part.name} ended with exit code {process.returncode}: {last_error_line(part.log)} "
            f"(all of its output: {part.log})"
        )


def _follow(process: subprocess.Popen[bytes], part: Part, progress: Progress) -> None:
    """Prints each new validation until the process ends, and a sign of life where none comes for long."""
    said, epochs = time.monotonic(), 0
    while process.poll() is None:
        time.sleep(_POLL_S)
        summary = read_summary(part.run_dir)
        told = _validated(summary.get("metrics", {}))
        if told is not None and summary["steps"] > epochs:
            said, epochs = time.monotonic(), summary["steps"]
            progress.say(f"{part.name}: step {epochs}, {told}")
        elif time.monotonic() - said > _HEARTBEAT_S:
            said = time.monotonic()
            progress.say(f"{part.name}: {'going on' if summary else 'starting'}")


def _validated(metrics: dict[str, Any]) -> str | None:
    """Returns the main figure of a validation in words, where there is one."""
    if (accuracy := metrics.get("val/accuracy")) is not None:
        return f"validation accuracy {100 * accuracy:.1f} %"
    loss = metrics.get("val/loss")
    return None if loss is None else f"validation loss {loss:.4f}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the process to stop as Ctrl-C would, and makes it stop where it does not."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(timeout=_TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
