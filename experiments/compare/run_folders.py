"""Runs read from their folders (contract C5): summary.json, config.yaml, metrics.csv, samples/*.png."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from experiments.compare.run import History, Run, flatten
from synfer.foundation.file_reading import plain_reason, reading
from synfer.runs.run_end import outcome_of

MARKS = ("summary.json", "config.yaml", "metrics.csv", "checkpoints")
"""A folder with one of these is a run folder; nothing below it is looked at."""

MAX_DEPTH = 5

_TIME = re.compile(r"\d{8}T\d{6}(?=Z-)")


def read_run_folders(folders: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """Reads every run folder at or below the given ones.

    Returns:
        The runs in the order of their paths, and one line for each folder that could not be read.
    """
    runs: list[Run] = []
    warnings: list[str] = []
    seen: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            warnings.append(f"'{folder}': found no such folder, expected a run folder or a folder of run folders")
            continue
        found = find_run_folders(folder)
        if not found:
            warnings.append(f"'{folder}': found no run folder, expected folders with a summary.json")
        for path in found:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            try:
                runs.append(read_run_folder(path))
            except ValueError as error:
                warnings.append(f"{error}; left out")
    return runs, warnings


def find_run_folders(folder: Path, depth: int = MAX_DEPTH) -> list[Path]:
    """Returns the run folders at or below a folder, sorted by path."""
    if any((folder / mark).exists() for mark in MARKS):
        return [folder]
    if depth == 0:
        return []
    try:
        below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []
    return [run for path in below for run in find_run_folders(Path(path), depth - 1)]


def read_run_folder(folder: Path) -> Run:
    """Reads one run folder; ``metrics.csv`` only when its history is asked for.

    Raises:
        ValueError: no summary, or one that is not what RunRecord writes.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"run '{folder}': found no summary.json (the run ended before it began, or is old)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"run '{folder}': summary.json cannot be read: {plain_reason(error)}") from None
    if not isinstance(summary, dict) or not isinstance(summary.get("metrics"), dict):
        raise ValueError(f"run '{folder}': summary.json holds no metrics, expected what train.py writes")
    with reading("run", path, "what train.py writes"):
        return _run_of(folder, summary)


def _run_of(folder: Path, summary: dict[str, Any]) -> Run:
    config = summary.get("config")
    flat = flatten(config if isinstance(config, dict) else _read_config(folder))
    seed = summary.get("seed", flat.get("seed_everything"))
    later = [summary[task] for task in ("validate", "test") if isinstance(summary.get(task), dict)]
    return Run(
        name=str(folder),
        config=flat,
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        status=outcome_of(summary),
        task=str(summary.get("task", "")),
        last=numbers(summary["metrics"]),
        best=numbers(summary.get("best") or {}),
        history=partial(read_history, folder / "metrics.csv"),
        splits=_hashes([summary, *later]),
        counts={name: int(n) for name, n in numbers(summary.get("counts") or {}).items()},
        samples=tuple(sorted((folder / "samples").glob("*.png"))),
        wandb_id=summary.get("wandb_id"),
        sweep_keys=_sweep_keys(folder / "sweep.json"),
        started=_started(summary.get("started"), folder.name),
    )


def read_history(path: Path, metric: str) -> History:
    """Returns (step, value) of every row of metrics.csv that holds the metric; [] without the file or the column.

    The half-written last row of a run that was killed is left out.

    Raises:
        ValueError: the file is not a table of numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"'{path}': {plain_reason(error)}, expected the table of a run: found no history") from None
    if "step" not in header:
        raise ValueError(f"'{path}': found no column 'step', expected the table of a run: found no history")
    if metric not in header:
        return []
    step, value, width = header.index("step"), header.index(metric), len(header)
    history = []
    for number, row in enumerate(rows, 2):
        if len(row) == width and row[value] and row[step]:
            history.append((_number(row[step], path, number), _number(row[value], path, number)))
        elif len(row) != width and number <= len(rows):
            raise ValueError(f"'{path}' line {number}: found {len(row)} cells, expected {width} as in its first line")
    return [(int(s), v) for s, v in history if math.isfinite(v) and math.isfinite(s)]


def _number(cell: str, path: Path, line: int) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"'{path}' line {line}: found '{cell[:40]}', expected a number") from None


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the entries that are finite numbers."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _read_config(folder: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load((folder / "config.yaml").read_text(), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"run '{folder}': found no settings in summary.json or config.yaml: {plain_reason(error)}"
        ) from None
    return config if isinstance(config, dict) else {}


def _started(recorded: object, name: str) -> float | None:
    """Returns when a fit began: as recorded, else by the UTC time in the name that train.py gives a folder.

    The times of files say nothing: a ``test`` in the folder or a copy of it changes them.
    """
    in_name = _TIME.search(name)
    try:
        if isinstance(recorded, str):
            return datetime.fromisoformat(recorded).timestamp()
        return datetime.strptime(f"{in_name[0]}+0000", "%Y%m%dT%H%M%S%z").timestamp() if in_name else None
    except ValueError:
        return None


def _sweep_keys(path: Path) -> tuple[str, ...]:
    try:
        return tuple(json.loads(path.read_text())["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()  # not started by sweep.py


def _hashes(summaries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns split → hash from the ``splits`` of a fit and of what ran in its folder later."""
    hashes: dict[str, str] = {}
    for summary in summaries:
        for split, manifest in (summary.get("splits") or {}).items():
            if isinstance(manifest, dict) and isinstance(manifest.get("sha256"), str):
                hashes[split] = manifest["sha256"]
    return hashes
