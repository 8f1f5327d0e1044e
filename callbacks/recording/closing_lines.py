"""What a run says at its end: what came of it, where it lies, and what can be typed next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synfer.metrics.directions import better
from synfer.runs.metric_text import in_order, number_text
from synfer.runs.run_end import is_complete
from synfer.runs.run_format import CONFIG, SUMMARY, last_checkpoint, read_summary
from synfer.runs.time_text import time_text

SYNTHETIC_SET = "configs/synthesise/plain.yaml"
"""The configuration by which a generator makes a set of faces."""


def closing_lines(run_dir: str | Path, task: str, makes_faces: bool = False, has_test: bool = True) -> list[str]:
    """Returns the last lines of a run, from its summary.json; [] where there is none, or after an error.

    Args:
        run_dir: the run folder.
        task: fit, validate, test or predict.
        makes_faces: whether the model is a generator.
        has_test: whether the model has a test.
    """
    folder, summary = short_path(run_dir), read_summary(run_dir)
    if task != "fit":
        own = summary.get(task, summary)
        if not isinstance(own, dict) or own.get("status") != "finished" or task == "predict":
            return []
        return [f"written to {folder}/{SUMMARY}", *_next(program("compare"), str(Path(folder).parent))]
    if summary.get("task") != "fit" or summary.get("status") in (None, "running", "failed"):
        return []
    run = [str(Path(folder) / CONFIG), "--ckpt_path"]
    if not is_complete(summary):  # RunRecord has said how far it came
        if not last_checkpoint(run_dir).is_file():
            return []
        checkpoint = str(last_checkpoint(folder))
        return _next(program("fit"), "--config", *run, checkpoint, "--run_dir", folder, word="go on")
    lines = [f"{_what_came(summary)} → {folder}"]
    if makes_faces:
        lines += _next(
            *(program("predict"), "--config", run[0], "--config", SYNTHETIC_SET, "--ckpt_path", folder),
            *("--run_dir", f"{folder}-set"),
        )
    elif has_test:
        lines += _next(program("test"), "--config", *run, folder, "--run_dir", folder)
    return lines


def _what_came(summary: Mapping[str, Any]) -> str:
    status, reason = summary["status"], summary.get("reason")
    how = status if reason in ("epochs", "steps", None) else f"{status} ({reason})"
    words = [f"{how} after {summary.get('steps')} steps in {time_text(float(summary.get('wall_s') or 0))}"]
    metrics = {n: v for n, v in (summary.get("metrics") or {}).items() if isinstance(v, (int, float))}
    validated = [name for name in in_order(metrics) if name.startswith("val/")]
    if validated:
        name = validated[0]
        text = f"{name} {number_text(metrics[name])}"
        best = (summary.get("best") or {}).get(name)
        if isinstance(best, (int, float)) and best != metrics[name] and better(name, best, metrics[name]) == best:
            text += f" (its best: {number_text(best)})"
        words.append(text)
    return ", ".join(words)


def _next(command: str, *words: str, word: str = "next") -> list[str]:
    return [f"{word}: {command} {shlex.join(words)}"]


def program(subcommand: str) -> str:
    """Returns how a command is typed by whoever started this process: ``python train.py test``, or ``synfer test``."""
    path = Path(sys.argv[0] or "train.py")
    name = path.parent.name if path.name == "__main__.py" else path.name  # python -m synfer
    if name == "train.py" or name.endswith(".py"):
        return f"python {subcommand}.py" if subcommand in ("compare", "sweep") else f"python train.py {subcommand}"
    return f"{name} {subcommand}"


def short_path(path: str | Path) -> str:
    """Returns a path as it is typed here: relative where it lies below the working directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
