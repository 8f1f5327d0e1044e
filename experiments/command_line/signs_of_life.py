"""What a run shows of itself in place of what Lightning shows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.utilities.model_helpers import is_overridden

from callbacks.recording.closing_lines import closing_lines
from callbacks.recording.run_progress import RunProgress


def use_run_progress(chosen: dict[str, Any], callbacks: list[Callback], settings: Mapping[str, Any], task: str) -> None:
    """Adds :class:`RunProgress`, and switches off what Lightning would show beside it.

    A progress bar or a model summary that the user has put among ``trainer.callbacks`` stays.

    Args:
        chosen: arguments of the trainer, changed in place.
        callbacks: those of the run, changed in place; the first one stays the first.
        settings: the settings of the command; ``verbose`` is that of ``test`` and ``validate``.
        task: fit, validate, test or predict.
    """
    if task != "fit":  # which write no checkpoint, wherever the one that they read lies
        warnings.filterwarnings("ignore", message="The dirpath has changed from")
    given = chosen.get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    has_bar = any(isinstance(callback, ProgressBar) for callback in given)
    wants_bar = chosen.get("enable_progress_bar") is not False and not has_bar
    callbacks.insert(1, RunProgress(bar=wants_bar, table=bool(settings.get("verbose", True))))
    chosen["enable_progress_bar"] = has_bar
    chosen["enable_model_summary"] = any(isinstance(callback, ModelSummary) for callback in given)


def without_table(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns arguments of ``trainer.test`` by which Lightning prints no table of its own."""
    return {**kwargs, "verbose": False} if "verbose" in kwargs else kwargs


def say_the_end(run_dir: Path, task: str, model: LightningModule) -> None:
    """Prints what came of a run, where it lies and what can be typed next; on rank 0."""
    tested = is_overridden("test_step", model, LightningModule)
    for line in closing_lines(run_dir, task, hasattr(model, "synthesise"), tested):
        print(line, flush=True)
