"""``make demo``: from nothing to a mixed-training result on drawn faces, in minutes, on two cores, without a download.

Two classifiers with the same number of optimiser steps: one sees few real faces alone, the other sees half real and
half synthetic ones, which the generator of ``demo/weights/`` makes while it trains (guided and labelled by the first
classifier). Each is an ordinary run of ``train.py``, started as a user would start it. At the end there is a table and
``runs/demo/report.png``.

Run again, it does only what is missing: a finished run is kept while its command line, its configs and the weights that
it reads are the same.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from experiments.command_line.child_output import last_error_line
from experiments.command_line.project import PROJECT, shipped
from synfer.runs.run_format import last_checkpoint, read_summary

FOLDER = Path("runs/demo")
"""Where everything goes: in the checkout, or in the folder from which an installed demo is started."""

GENERATOR = Path("demo/weights/drawn_generator")
CONFIGS = ("configs/classifier/tiny.yaml", "configs/demo/few_faces.yaml")
"""What both runs share."""

MIXED_CONFIGS = ("configs/demo/mixed.yaml",)
"""What the mixed run has on top."""

PACKAGES = ("torch", "lightning", "diffusers", "transformers", "timm", "jsonargparse", "matplotlib", "safetensors")

_FINGERPRINT = "demo_fingerprint.txt"
_POLL_S, _HEARTBEAT_S, _TIMEOUT_S = 0.25, 20.0, 20.0


class DemoError(Exception):
    """What keeps the demo from going on, as one line."""


@dataclass(frozen=True)
class Part:
    """One run of ``train.py``.

    Attributes:
        name: its folder in ``runs/demo``.
        options: command line after ``train.py fit``, without the run folder.
        reads: files whose content decides whether an earlier result is still good.
    """

    name: str
    options: tuple[str, ...]
    reads: tuple[Path, ...] = field(default=())

    @property
    def run_dir(self) -> Path:
        """The run folder, seen from the project's folder."""
        return FOLDER / self.name

    @property
    def checkpoint(self) -> Path:
        """The run's last checkpoint."""
        return last_checkpoint(self.run_dir)

    @property
    def log(self) -> Path:
        """What the run printed."""
        return FOLDER / f"{self.name}.log"

    def command(self) -> list[str]:
        """Returns the command line after the interpreter."""
        return [str(shipped("train.py")), "fit", *self.options, f"--run_dir={self.run_dir}"]


def parts() -> tuple[Part, Part]:
    """Returns the real-only run and the mixed run, in the order in which they must happen."""
    generator = shipped(GENERATOR)
    shared = [word for config in CONFIGS for word in ("--config", config)]
    real_only = Part("real_only", tuple(shared), tuple(shipped(config) for config in CONFIGS))
    mixed = Part(
        "mixed",
        (
            *shared,
            *(word for config in MIXED_CONFIGS for word in ("--config", config)),
            f"--synthesis.generator={generator}",
            "--guidance.enabled=true",
            f"--guidance.guide={real_only.checkpoint}",
            "--pseudo_labels.enabled=true",
            f"--pseudo_labels.voters=[{real_only.checkpoint}]",
        ),
        (
            *real_only.reads,
            *(shipped(config) for config in MIXED_CONFIGS),
            generator / "config.json",
            generator / "model.safetensors",
            real_only.checkpoint,
        ),
    )
    return real_only, mixed


def main() -> None:
    """Runs what is missing, prints the table and draws the picture.

    Raises:
        DemoError: something is missing, or a run failed.
        KeyboardInterrupt: stopped by the user; the run that was going on has ended.
    """
    if (PROJECT / "pyproject.toml").is_file():  # a checkout keeps its runs; an installed package has no place for them
        os.chdir(PROJECT)
    check_installation()
    progress = Progress()
    real_only, mixed = parts()
    for part in (real_only, mixed):
        if is_done(part):
            progress.say(f"{part.name}: finished earlier with the same settings, kept")
            continue
        shutil.rmtree(part.run_dir, ignore_errors=True)
        run_part(part, progress)
        (part.run_dir / _FINGERPRINT).write_text(fingerprint(part))
    progress.say("report: some more faces for the picture")
    table = report(real_only, mixed)
    progress.say("done")
    print(f"\n{table}\n\nPicture: {FOLDER / 'report.png'}\nRuns: {real_only.run_dir}, {mixed.run_dir}", flush=True)


def report(real_only: Part, mixed: Part) -> str:
    """Writes ``report.png`` and ``report.txt`` and returns the table."""
    # Here and not above: it takes seconds to load, and what is missing should be said at once.
    from demo.report import draw_report, read_run, result_table

    results = read_run(real_only.run_dir), read_run(mixed.run_dir)
    draw_report(*results, path=FOLDER / "report.png")
    table = result_table(*results)
    (FOLDER / "report.txt").write_text(table + "\n")
    return table


class Progress:
    """Prints lines with the time since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def say(self, line: str) -> None:
        """Prints one line."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"[{minutes:2d}:{seconds:02d}] {line}", flush=True)


def check_installation() -> None:
    """Checks that everything is there before anything is started.

    Raises:
        DemoError: a package, a config or the generator is missing.
    """
    lost = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if lost:
        raise DemoError(f"package '{lost[0]}' is not installed for {sys.executable}: run make demo, or make install")
    _, mixed = parts()
    for path in mixed.reads:
        if not path.is_file() and FOLDER not in path.parents:
            hint = (
                " (configs/generator/drawn.yaml says how to train it anew)"
                if GENERATOR.name == path.parent.name
                else ""
            )
            raise DemoError(f"found no {path}, expected it in {PROJECT}{hint}")


def fingerprint(part: Part) -> str:
    """Returns what the result of a part depends on: SHA-256 over its command line and the files it reads."""
    digest = hashlib.sha256("\0".join(part.command()).encode())
    for path in part.reads:
        digest.update(f"\0{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_done(part: Part) -> bool:
    """Whether the part finished earlier, from the same command line, configs and weights."""
    stamp = part.run_dir / _FINGERPRINT
    finished = read_summary(part.run_dir).get("status") == "finished" and part.checkpoint.is_file() and stamp.is_file()
    return finished and all(path.is_file() for path in part.reads) and stamp.read_text() == fingerprint(part)


def run_part(part: Part, progress: Progress) -> None:
    """Runs one part in a process of its own and tells how far it is.

    Raises:
        DemoError: it failed; the line holds its own error and where its output is.
        KeyboardInterrupt: stopped by the user; the process has ended.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = part.command()
    progress.say(f"{part.name}: python {shlex.join(command)}")
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    # Nothing of a demo should show up in somebody's W&B account. One thread: networks this small lose more by waiting
    # for a second one than they gain, and the numbers do not depend on how many cores there are.
    environment = {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", **os.environ}
    with part.log.open("w") as log:
        # In a session of its own, Ctrl-C reaches it through us, once, and we can wait until it has ended.
        process = subprocess.Popen(
            [sys.executable, *command, *quiet],
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
    """Prints each new validation accuracy until the process ends, and a sign of life where none comes for long."""
    said, epochs = time.monotonic(), 0
    while process.poll() is None:
        time.sleep(_POLL_S)
        summary = read_summary(part.run_dir)
        accuracy = summary.get("metrics", {}).get("val/accuracy")
        if accuracy is not None and summary["steps"] > epochs:
            said, epochs = time.monotonic(), summary["steps"]
            progress.say(f"{part.name}: step {epochs}, validation accuracy {100 * accuracy:.1f} %")
        elif time.monotonic() - said > _HEARTBEAT_S:
            said = time.monotonic()
            progress.say(f"{part.name}: {'going on' if summary else 'starting'}")


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
