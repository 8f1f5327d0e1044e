"""Runs read from a W&B project through its public API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from experiments.compare.run import Run
from synfer.foundation.file_reading import one_line
from synfer.metrics.directions import direction
from synfer.runs.flat_settings import plain_settings
from synfer.runs.metrics_table import History
from synfer.runs.run_end import outcome_of
from synfer.runs.run_format import numbers
from synfer.runs.wandb_login import find_wandb_key

TIMEOUT_S = 20
"""Seconds that one request to the W&B server may take."""

EXTREME = {"higher": "max", "lower": "min"}
"""What ``define_metric(summary=…)`` calls the best value of a metric, where it does not call it "best"."""


def read_wandb_project(path: str, api: Any = None) -> tuple[list[Run], list[str]]:
    """Reads all runs of a project; their histories only when they are asked for.

    Args:
        path: ``entity/project``, or ``project`` of the default entity.
        api: a ``wandb.Api``; None = one made with the key of this machine.

    Returns:
        The runs in the server's order, and one line on what could not be read: a wrong key, a project that does not
        exist, a server that does not answer. Nothing is raised for these, so that runs of other sources go on.
    """
    try:
        import wandb
    except ImportError as error:  # pragma: no cover
        return [], [f"W&B project '{path}': {error}, expected the package wandb"]
    runs: list[Run] = []
    warnings: list[str] = []
    try:
        project = (api or wandb.Api(timeout=TIMEOUT_S)).runs(path)
        # Newer clients fetch settings run by run unless told to fetch whole runs.
        if hasattr(project, "upgrade_to_full"):
            project.upgrade_to_full()
        for found in project:
            runs.append(_read(path, found))
    except (wandb.errors.Error, ValueError, TypeError, OSError) as error:  # requests' errors are OSErrors
        warnings.append(f"W&B project '{path}': {_reason(error)}")
    if not runs and not warnings:
        warnings.append(f"W&B project '{path}': found no runs")
    return runs, warnings


def _read(path: str, found: Any) -> Run:
    config = plain_settings(dict(found.config))
    last, best = _last_and_best(dict(found.summary))
    seed = config.get("seed_everything")
    return Run(
        name=f"{path}/{found.id}",
        config=config,
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        status=_status(found),
        task=getattr(found, "job_type", None) or "",
        last=last,
        best=best,
        history=partial(_history, found),
        wandb_id=found.id,
        from_wandb=True,
        started=_timestamp(getattr(found, "created_at", "")),
        wall_s=numbers(dict(found.summary)).get("_runtime"),
    )


def _status(found: Any) -> str:
    """Returns W&B's state of a run, and where the run itself wrote how it ended, that: a time limit is no crash."""
    end = {name.removeprefix("end/"): value for name, value in dict(found.summary).items() if name.startswith("end/")}
    return outcome_of(end) if "complete" in end else str(found.state)


def _last_and_best(summary: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Splits a summary into last and best values.

    Metrics are numbers or ``{"last": …, "max": …}``; what train.py writes under ``best/`` and ``last/`` is the best and
    last value of the metric behind it.
    """
    found = numbers(summary)
    best = {name.removeprefix("best/"): value for name, value in found.items() if name.startswith("best/")}
    last = {name: value for name, value in found.items() if not name.startswith(("best/", "last/", "end/"))}
    for name, value in summary.items():
        if isinstance(value, Mapping) or hasattr(value, "keys"):
            entries = numbers(dict(value))
            if "last" in entries:
                last[name] = entries["last"]
            wanted = direction(name)
            found_best = entries.get("best", entries.get(EXTREME[wanted]) if wanted else None)
            if found_best is not None:
                best[name] = found_best
    return last, best


def _history(found: Any, metric: str) -> History:
    import wandb

    try:
        rows = list(found.scan_history(keys=["_step", metric]))
    except (wandb.errors.Error, ValueError, TypeError, OSError) as error:
        raise ValueError(f"W&B run '{found.id}': history cannot be read ({one_line(error)})") from None
    return [(int(row["_step"]), float(row[metric])) for row in rows if numbers(row).keys() >= {"_step", metric}]


def _reason(error: Exception) -> str:
    """Names the key that was refused (its last four characters), or repeats what W&B said."""
    said = one_line(error)
    about_the_key = type(error).__name__ in ("AuthenticationError", "UsageError") or any(
        word in said.lower() for word in ("401", "api key", "api_key", "permission", "credentials", "relogin")
    )
    if not about_the_key:
        return said
    origin, key = find_wandb_key()
    if not key:
        return f"found no key in WANDB_API_KEY or from `wandb login` ({said})"
    return f"the key ending in '{key[-4:]}' (from {origin}) could not be used ({said.replace(key, '…' + key[-4:])})"


def _timestamp(created: str) -> float | None:
    try:
        return datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()
    except (ValueError, AttributeError):
        return None
