"""Runs read from their folders (contract C5): summary.json, config.yaml, metrics.csv, samples/*.png."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from experiments.compare.run import Run
from synfer.foundation.file_reading import reading
from synfer.runs.flat_settings import plain_settings
from synfer.runs.metrics_table import read_history
from synfer.runs.row_file import row_file
from synfer.runs.run_end import outcome_of
from synfer.runs.run_format import (
    MARKS,
    METRICS,
    MISCLASSIFIED,
    SAMPLES,
    SUMMARY,
    load_config,
    load_summary,
    numbers,
    sweep_parameters,
)

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
    """Returns the run folders at or below a folder, sorted by path; nothing below one is looked at."""
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
    summary = load_summary(folder)
    with reading("run", folder / SUMMARY, "what train.py writes"):
        return _run_of(folder, summary)


def _run_of(folder: Path, summary: dict[str, Any]) -> Run:
    config = summary.get("config")
    flat = plain_settings(config if isinstance(config, dict) else load_config(folder))
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
        history=partial(read_history, folder / METRICS),
        splits=_hashes([summary, *later]),
        rows=_row_files(folder, summary),
        counts={name: int(n) for name, n in numbers(summary.get("counts") or {}).items()},
        samples=tuple(sorted((folder / SAMPLES).glob("*.png"))),
        wandb_id=summary.get("wandb_id"),
        sweep_keys=sweep_parameters(folder),
        started=_started(summary.get("started"), folder.name),
        wall_s=numbers(summary).get("wall_s"),
        folder=folder,
        misclassified=tuple(sorted((folder / MISCLASSIFIED).glob("*.png"))),
    )


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


def _row_files(folder: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    """Returns split → file with its rows: those of what ran last in the folder, as for their hashes."""
    files: dict[str, Path] = {}
    for task in (None, "validate", "test"):
        told = summary if task is None else summary.get(task)
        for split in (told.get("splits") or {}) if isinstance(told, dict) else ():
            path = row_file(folder, str(split), task)
            if path.is_file():
                files[str(split)] = path
    return files


def _hashes(summaries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns split → hash from the ``splits`` of a fit and of what ran in its folder later."""
    hashes: dict[str, str] = {}
    for summary in summaries:
        for split, manifest in (summary.get("splits") or {}).items():
            if isinstance(manifest, dict) and isinstance(manifest.get("sha256"), str):
                hashes[split] = manifest["sha256"]
    return hashes
