"""The run folder (C5): the names of its files, and how each is written and read.

::

    config.yaml     the resolved settings; those of a later validate, test or predict in config.<task>.yaml
    summary.json    how the run ended, its settings, counts, last and best metrics
    metrics.csv     a row per logging, a column per metric (:mod:`synfer.runs.metrics_table`)
    rows/           ids, content hashes and labels of the rows of each split (:mod:`synfer.runs.row_file`)
    checkpoints/    last.ckpt and, where asked, the best
    samples/        pictures of faces
    misclassified/  the faces that a classifier was most wrongly sure of: they stay here, and go nowhere else
    sweep.json      parameters and attempts, where a sweep started the run
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from synfer.foundation.file_reading import plain_reason
from synfer.foundation.json_file import read_json_if_whole, write_json
from synfer.metrics.directions import better

SUMMARY, CONFIG, METRICS, SWEEP = "summary.json", "config.yaml", "metrics.csv", "sweep.json"
CHECKPOINTS, SAMPLES, MISCLASSIFIED = "checkpoints", "samples", "misclassified"

MARKS = (SUMMARY, CONFIG, METRICS, CHECKPOINTS)
"""A folder that holds one of these is a run folder."""


def last_checkpoint(run_dir: str | Path) -> Path:
    """Returns where a run's newest checkpoint lies, or will lie."""
    return Path(run_dir) / CHECKPOINTS / "last.ckpt"


def write_summary(run_dir: str | Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json, whole or not at all.

    Raises:
        OSError: no space, or no such folder.
    """
    write_json(Path(run_dir) / SUMMARY, summary, default=str)


def mark_summary(run_dir: str | Path, status: str) -> None:
    """Says in an existing summary that the run has ended, in the bytes that it has: a full disk takes no others."""
    path = Path(run_dir) / SUMMARY
    try:
        text = path.read_text()
        marked = text.replace('"status": "running"', f'"status": {json.dumps(status)}', 1)
        with path.open("r+") as file:
            file.write(marked.ljust(len(text)))
    except OSError:
        return


def read_summary(run_dir: str | Path) -> dict[str, Any]:
    """Returns summary.json; {} while there is none that can be read."""
    return read_json_if_whole(Path(run_dir) / SUMMARY)


def read_fit_summary(run_dir: str | Path) -> dict[str, Any] | None:
    """Returns the summary.json of a fit; None where there is none that can be read."""
    found = read_summary(run_dir)
    return found if found.get("task") == "fit" else None


def load_summary(run_dir: str | Path) -> dict[str, Any]:
    """Returns summary.json of a run that is known to have one.

    Raises:
        ValueError: no file, no JSON, or something other than a run's summary; one line.
    """
    folder = Path(run_dir)
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"run '{folder}': found no summary.json (the run ended before it began, or is old)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"run '{folder}': summary.json cannot be read: {plain_reason(error)}") from None
    if not isinstance(summary, dict) or not isinstance(summary.get("metrics"), dict):
        raise ValueError(f"run '{folder}': summary.json holds no metrics, expected what train.py writes")
    return summary


def write_config(run_dir: str | Path, text: str, task: str | None = None) -> Path:
    """Writes the resolved settings and returns the file.

    Args:
        run_dir: the run folder.
        text: YAML.
        task: validate, test or predict in the folder of a fit, whose own settings stay; None = the run's own.
    """
    path = Path(run_dir) / (CONFIG if task is None else f"config.{task}.yaml")
    path.write_text(text)
    return path


def load_config(run_dir: str | Path) -> dict[str, Any]:
    """Returns config.yaml as plain types; {} where it holds no settings.

    Raises:
        ValueError: it is missing or no YAML; one line.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load((Path(run_dir) / CONFIG).read_text(), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"run '{run_dir}': found no settings in summary.json or config.yaml: {plain_reason(error)}"
        ) from None
    return config if isinstance(config, dict) else {}


def sweep_parameters(run_dir: str | Path) -> tuple[str, ...]:
    """Returns the parameters of the sweep that started a run; () without one."""
    parameters = read_json_if_whole(Path(run_dir) / SWEEP).get("parameters")
    return tuple(parameters) if isinstance(parameters, (dict, list)) else ()


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the entries that are finite numbers."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def take_best(best: dict[str, float], values: Mapping[str, float]) -> None:
    """Takes values into the best ones so far, in place; metrics that are neither good nor bad are left out."""
    for name, value in values.items():
        found = better(name, value, best.get(name, value))
        if found is not None:
            best[name] = found
